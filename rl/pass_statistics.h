// Figures of an evaluation: of n samples a problem, c were right.
#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <string>

namespace cohort::rl {

/// The chance that at least one of k samples drawn without return from n, of which c are right, is
/// right: 1 - C(n - c, k) / C(n, k), the unbiased estimator of arXiv:2107.03374, eq. 1.
/// 0 <= c <= n, 1 <= k <= n.
double pass_at_k(int64_t n, int64_t c, int64_t k);

/// Low and high end of a 95 % interval, within [0, 1].
using Interval = std::array<double, 2>;

/// Wilson's score interval of `right` out of `trials` independent ones; [0, 1] for no trial.
Interval wilson_interval(int64_t right, int64_t trials);

/// Of the mean of `share`, the share of right samples of each problem: the problems are the
/// independent draws, samples of one problem are not. With one sample a problem, and where all
/// samples of all problems agree (the normal approximation would give no width), Wilson's over
/// problems; else mean +- 1.96 standard errors.
Interval share_interval(std::span<const double> share, int64_t samples);

/// How right the most frequent answer is: the mean of `right` over the samples that gave it; over
/// answers that are equally frequent, the mean of theirs. An empty answer has no vote; 0 when
/// nobody votes.
double majority(std::span<const std::string> answer, std::span<const bool> right);

/// What a completion gives as its answer: the text of the last pair of `tag`, else the last line
/// that is not blank; white space at the ends dropped.
std::string answer_of(std::string_view text, std::string_view tag);

}  // namespace cohort::rl
