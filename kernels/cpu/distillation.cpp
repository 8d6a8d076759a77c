#include "kernels/cpu/distillation.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>
#include <vector>

#include "kernels/cpu/largest.h"
#include "kernels/cpu/parallel.h"

namespace cohort::kernels {
namespace {

template <class A>
A sum_over(const A* values, int64_t count) {
  Vector<A> sums = {};
  each_vector<A>(count, [&](int64_t i, auto n) COHORT_LAMBDA {
    auto v = load(values + i, n);
    if constexpr (!std::is_same_v<decltype(n), AllLanes<A>>)
      for (int64_t j = n; j < kLanes<A>; ++j) v[j] = 0;
    sums += v;
  });
  return sum_of<A>(sums);
}

/// log softmax(values / temperature), in place.
void soften(std::vector<double>& values, double temperature) {
  double largest = -std::numeric_limits<double>::infinity();
  for (double& value : values) largest = std::max(largest, value /= temperature);
  double sum = 0;
  for (const double value : values) sum += std::exp(value - largest);
  const double log_sum = largest + std::log(sum);
  for (double& value : values) value -= log_sum;
}

/// The divergence of the buckets, and its gradient in `student`. Both hold logarithms: teacher's
/// and student's, not softened yet.
double diverge(std::vector<double>& teacher,
               std::vector<double>& student,
               const DistillationRule& rule) {
  soften(teacher, rule.temperature);
  soften(student, rule.temperature);
  const auto& from = rule.reverse ? student : teacher;
  const auto& to = rule.reverse ? teacher : student;
  double sum = 0;
  for (size_t i = 0; i < from.size(); ++i) {
    const double p = std::exp(from[i]);
    if (p > 0) sum += p * (from[i] - to[i]);
  }
  for (size_t i = 0; i < student.size(); ++i) {
    const double q = std::exp(student[i]);
    const double towards =
        rule.reverse ? (q > 0 ? q * (student[i] - teacher[i] - sum) : 0) : q - std::exp(teacher[i]);
    student[i] = rule.temperature * towards;
  }
  return sum * rule.temperature * rule.temperature;
}

template <class A>
struct Work {
  explicit Work(int64_t classes) : exponentials(classes) {}
  std::vector<A> exponentials;  ///< [classes]
  std::vector<double> teacher, student;
};

template <class T>
void one_row(T* logits,
             int64_t target,
             const int32_t* top_tokens,
             const double* top_log_probs,
             int64_t classes,
             int64_t k,
             const DistillationRule& rule,
             bool gradient,
             Work<Sum<T>>& work,
             double& nats,
             double& divergence) {
  using A = Sum<T>;
  A* e = work.exponentials.data();
  const A top = largest_of(logits, classes);
  each_vector<A>(classes, [&](int64_t i, auto n) COHORT_LAMBDA {
    store(e + i, exp_of(load(logits + i, n) - top), n);
  });
  const A sum = sum_over(e, classes);
  const double log_sum = std::log(static_cast<double>(sum)) + static_cast<double>(top);
  nats = log_sum - static_cast<double>(to_sum(logits[target]));

  k = std::find(top_tokens, top_tokens + k, -1) - top_tokens;
  work.teacher.assign(top_log_probs, top_log_probs + k);
  work.student.clear();
  double named = 0;
  for (int64_t i = 0; i < k; ++i) {
    work.student.push_back(static_cast<double>(to_sum(logits[top_tokens[i]])) - log_sum);
    named += std::exp(top_log_probs[i]);
  }
  A rest = 0, least = std::numeric_limits<A>::min();
  const bool has_rest = k < classes;
  if (has_rest) {
    for (int64_t i = 0; i < k; ++i) e[top_tokens[i]] = 0;
    rest = sum_over(e, classes);
    work.teacher.push_back(std::log(std::max(1 - named, kLeastRest)));
    work.student.push_back(std::log(static_cast<double>(std::max(rest, least))) -
                           std::log(static_cast<double>(sum)));
  }
  divergence = diverge(work.teacher, work.student, rule);
  if (!gradient) return;

  // e holds 0 for the teacher's classes, whose gradients are added one by one.
  const double w = rule.weight, share = (1 - w) / static_cast<double>(sum);
  // A rest that has vanished has no logit left to move.
  const double of_rest =
      has_rest && rest >= least ? w * work.student[k] / static_cast<double>(rest) : 0;
  const A scale = static_cast<A>(share + of_rest);
  if (!has_rest)
    for (int64_t i = 0; i < k; ++i) e[top_tokens[i]] = 0;
  each_vector<A>(classes,
                 [&](int64_t i, auto n) COHORT_LAMBDA { store(e + i, load(e + i, n) * scale, n); });
  for (int64_t i = 0; i < k; ++i) {
    const double logit = static_cast<double>(to_sum(logits[top_tokens[i]]));
    e[top_tokens[i]] = static_cast<A>((1 - w) * std::exp(logit - log_sum) + w * work.student[i]);
  }
  e[target] -= static_cast<A>(1 - w);
  each_vector<A>(classes,
                 [&](int64_t i, auto n) COHORT_LAMBDA { store(logits + i, load(e + i, n), n); });
}

}  // namespace

template <class T>
void distillation(T* logits,
                  const int64_t* target,
                  const int32_t* top_tokens,
                  const double* top_log_probs,
                  int64_t rows,
                  int64_t classes,
                  int64_t k,
                  const DistillationRule& rule,
                  bool gradient,
                  double* nats,
                  double* divergence) {
  parallel_for(rows, 8192 / classes + 1, [&](int64_t begin, int64_t end) {
    Work<Sum<T>> work(classes);
    for (int64_t i = begin; i < end; ++i)
      one_row<T>(logits + i * classes,
                 target[i],
                 top_tokens + i * k,
                 top_log_probs + i * k,
                 classes,
                 k,
                 rule,
                 gradient,
                 work,
                 nats[i],
                 divergence[i]);
  });
}

#define COHORT_INSTANTIATE(T)                            \
  template void distillation<T>(T*,                      \
                                const int64_t*,          \
                                const int32_t*,          \
                                const double*,           \
                                int64_t,                 \
                                int64_t,                 \
                                int64_t,                 \
                                const DistillationRule&, \
                                bool,                    \
                                double*,                 \
                                double*);
COHORT_INSTANTIATE(float)
COHORT_INSTANTIATE(double)
COHORT_INSTANTIATE(bf16)
#undef COHORT_INSTANTIATE

}  // namespace cohort::kernels
