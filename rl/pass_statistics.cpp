#include "rl/pass_statistics.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "core/base/error.h"
#include "rl/rewards/tagged.h"

namespace cohort::rl {
namespace {

constexpr double kZ = 1.959963984540054;  // 97.5 % of a standard normal lie below

Interval around(double centre, double half) {
  return {std::max(0.0, centre - half), std::min(1.0, centre + half)};
}

}  // namespace

double pass_at_k(int64_t n, int64_t c, int64_t k) {
  COHORT_CHECK(0 <= c && c <= n && 1 <= k && k <= n, "pass@{} of {} right out of {}", k, c, n);
  if (n - c < k) return 1.0;
  double none = 1.0;
  for (int64_t i = n - c + 1; i <= n; ++i)
    none *= 1.0 - static_cast<double>(k) / static_cast<double>(i);
  return 1.0 - none;
}

Interval wilson_interval(int64_t right, int64_t trials) {
  if (trials == 0) return {0.0, 1.0};
  const double n = static_cast<double>(trials), p = static_cast<double>(right) / n;
  const double shrink = 1.0 + kZ * kZ / n;
  const double half = kZ * std::sqrt(p * (1 - p) / n + kZ * kZ / (4 * n * n)) / shrink;
  Interval interval = around((p + kZ * kZ / (2 * n)) / shrink, half);
  if (right == 0) interval[0] = 0.0;  // exactly, not but for rounding
  if (right == trials) interval[1] = 1.0;
  return interval;
}

Interval share_interval(std::span<const double> share, int64_t samples) {
  const auto n = static_cast<int64_t>(share.size());
  double sum = 0, squares = 0;
  for (const double one : share) sum += one;
  const double mean = n > 0 ? sum / static_cast<double>(n) : 0;
  if (samples == 1 || mean == 0 || mean == 1) return wilson_interval(std::llround(sum), n);
  if (n == 1) return {0.0, 1.0};  // one problem says nothing of how problems differ
  for (const double one : share) squares += (one - mean) * (one - mean);
  const double count = static_cast<double>(n);
  return around(mean, kZ * std::sqrt(squares / (count - 1) / count));
}

double majority(std::span<const std::string> answer, std::span<const bool> right) {
  struct Votes {
    int64_t all = 0, right = 0;
  };
  std::map<std::string_view, Votes> votes;
  int64_t most = 0;
  for (size_t i = 0; i < answer.size(); ++i) {
    if (answer[i].empty()) continue;
    Votes& of = votes[answer[i]];
    of.right += right[i];
    most = std::max(most, ++of.all);
  }
  double sum = 0, winners = 0;
  for (const auto& [text, of] : votes)
    if (of.all == most) {
      sum += static_cast<double>(of.right) / static_cast<double>(of.all);
      winners += 1;
    }
  return winners > 0 ? sum / winners : 0.0;
}

std::string answer_of(std::string_view text, std::string_view tag) {
  if (const auto inside = last_tagged(text, tag)) return std::string(trimmed(*inside));
  const std::string_view body = trimmed(text);
  return std::string(trimmed(body.substr(body.rfind('\n') + 1)));
}

}  // namespace cohort::rl
