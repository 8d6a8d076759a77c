#include "rl/pass_statistics.h"

#include <cmath>

#include "core/base/error.h"
#include "tests/catch.h"

using namespace cohort;
using namespace cohort::rl;

TEST_CASE("pass@k is the share of k-subsets that hold a right sample", "[rl-evaluate]") {
  // Counted over all subsets, the definition itself.
  for (int n = 1; n <= 8; ++n)
    for (int c = 0; c <= n; ++c)
      for (int k = 1; k <= n; ++k) {
        double all = 0, hit = 0;
        for (unsigned set = 0; set < 1u << n; ++set) {
          if (__builtin_popcount(set) != k) continue;
          all += 1;
          hit += (set & ((1u << c) - 1)) != 0;
        }
        INFO(n << " " << c << " " << k);
        CHECK(pass_at_k(n, c, k) == Approx(hit / all).margin(1e-12));
      }
  CHECK(pass_at_k(200, 1, 100) == Approx(0.5));
  CHECK(pass_at_k(10000, 5000, 1) == Approx(0.5));
  CHECK_THROWS_AS(pass_at_k(4, 5, 1), Error);
  CHECK_THROWS_AS(pass_at_k(4, 1, 5), Error);
}

TEST_CASE("Wilson's interval has its published values and never leaves 0 to 1", "[rl-evaluate]") {
  const Interval half = wilson_interval(5, 10);
  CHECK(half[0] == Approx(0.2366).margin(5e-5));
  CHECK(half[1] == Approx(0.7634).margin(5e-5));
  const Interval none = wilson_interval(0, 20);
  CHECK(none[0] == 0.0);
  CHECK(none[1] == Approx(0.1611).margin(5e-5));
  CHECK(wilson_interval(20, 20)[1] == 1.0);
  CHECK(wilson_interval(20, 20)[0] == Approx(1 - 0.1611).margin(5e-5));
  CHECK(wilson_interval(0, 0) == Interval{0.0, 1.0});
}

TEST_CASE("an interval over problems takes each problem's samples as one draw", "[rl-evaluate]") {
  const std::vector<double> share{0.0, 0.25, 0.5, 1.0};
  const double mean = 0.4375;
  double squares = 0;
  for (const double one : share) squares += (one - mean) * (one - mean);
  const double half = 1.959964 * std::sqrt(squares / 3 / 4);
  const Interval interval = share_interval(share, 4);
  CHECK(interval[0] == Approx(mean - half).margin(1e-6));
  CHECK(interval[1] == Approx(mean + half).margin(1e-6));
  // Ten times the samples make no difference, ten times the problems do.
  CHECK(share_interval(share, 40) == interval);
  std::vector<double> more;
  for (int i = 0; i < 10; ++i) more.insert(more.end(), share.begin(), share.end());
  CHECK(share_interval(more, 4)[1] - share_interval(more, 4)[0] <
        0.35 * (interval[1] - interval[0]));
}

TEST_CASE("one sample a problem, and problems that all agree, get Wilson's interval",
          "[rl-evaluate]") {
  const std::vector<double> ones{1, 0, 1, 1, 0, 1, 0, 1, 0, 0}, all(20, 1.0), none(20, 0.0);
  CHECK(share_interval(ones, 1) == wilson_interval(5, 10));
  CHECK(share_interval(all, 8) == wilson_interval(20, 20));
  CHECK(share_interval(none, 8) == wilson_interval(0, 20));
  CHECK(share_interval(std::vector<double>{0.5}, 8) == Interval{0.0, 1.0});
}

namespace {

double majority_of(const std::vector<std::pair<std::string, bool>>& samples) {
  std::vector<std::string> answers;
  const auto right = std::make_unique<bool[]>(samples.size());
  for (size_t i = 0; i < samples.size(); ++i) {
    answers.push_back(samples[i].first);
    right[i] = samples[i].second;
  }
  return majority(answers, {right.get(), samples.size()});
}

}  // namespace

TEST_CASE("the most frequent answer decides, and equally frequent ones share", "[rl-evaluate]") {
  CHECK(majority_of({{"7", true}, {"7", true}, {"8", false}}) == 1.0);
  CHECK(majority_of({{"7", true}, {"8", false}, {"8", false}}) == 0.0);
  CHECK(majority_of({{"7", true}, {"8", false}}) == 0.5);
  CHECK(majority_of({{"7", true}, {"8", false}, {"9", false}}) == Approx(1.0 / 3));
  CHECK(majority_of({{"", false}, {"", false}, {"7", true}}) == 1.0);
  CHECK(majority_of({{"", false}, {"", false}}) == 0.0);
  CHECK(majority_of({{"7", true}, {"7", false}}) == 0.5);
  CHECK(majority_of({}) == 0.0);
}

TEST_CASE("an answer is the last tag's text, else the last line", "[rl-evaluate]") {
  CHECK(answer_of("a <answer>1</answer> b <answer>\n 2 </answer> c", "answer") == "2");
  CHECK(answer_of("first\n so it is 5 \n\n", "answer") == "so it is 5");
  CHECK(answer_of("<answer>never closed", "answer") == "<answer>never closed");
  CHECK(answer_of(" \n ", "answer").empty());
  CHECK(answer_of("", "answer").empty());
}
