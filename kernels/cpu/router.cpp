#include "kernels/cpu/router.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/cpu/parallel.h"

namespace cohort::kernels {
namespace {

constexpr int64_t kGrain = 64;  // tokens a thread at least

template <class Real>
struct Candidate {
  Real value;
  int64_t index;
  // The better one comes first; equal values by index.
  bool operator<(const Candidate& other) const {
    return value > other.value || (value == other.value && index < other.index);
  }
};

template <class Real>
Real comparable(Real value) {
  return std::isnan(value) ? -std::numeric_limits<Real>::infinity() : value;
}

/// Marks the groups_kept best groups of one token.
template <class Real>
void keep_groups(const TopKShape& shape,
                 const std::vector<Candidate<Real>>& choice,
                 std::vector<Candidate<Real>>& groups,
                 std::vector<char>& kept) {
  const int64_t size = shape.E / shape.num_groups;
  for (int64_t g = 0; g < shape.num_groups; ++g) {
    Real best = -std::numeric_limits<Real>::infinity(), second = best;
    for (int64_t i = g * size; i < (g + 1) * size; ++i) {
      const Real value = choice[i].value;
      if (value > best) {
        second = best;
        best = value;
      } else if (value > second) {
        second = value;
      }
    }
    groups[g] = {size > 1 ? best + second : best, g};
    kept[g] = 0;
  }
  std::partial_sort(groups.begin(), groups.begin() + shape.groups_kept, groups.end());
  for (int64_t g = 0; g < shape.groups_kept; ++g) kept[groups[g].index] = 1;
}

/// d_logits row from d_scores row: through the sigmoid of each or the softmax over all.
template <class Real>
void add_through_scores(
    Scoring scoring, int64_t E, const Real* scores, const Real* d_scores, Real* d_logits) {
  if (scoring == Scoring::kSigmoid) {
    for (int64_t e = 0; e < E; ++e) d_logits[e] += d_scores[e] * scores[e] * (1 - scores[e]);
    return;
  }
  Real dot = 0;
  for (int64_t e = 0; e < E; ++e) dot += d_scores[e] * scores[e];
  for (int64_t e = 0; e < E; ++e) d_logits[e] += scores[e] * (d_scores[e] - dot);
}

}  // namespace

template <class Real>
void router_scores(const Real* logits, int64_t T, int64_t E, Scoring scoring, Real* scores) {
  parallel_for(T, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const Real* in = logits + t * E;
      Real* out = scores + t * E;
      if (scoring == Scoring::kSigmoid) {
        for (int64_t e = 0; e < E; ++e) out[e] = 1 / (1 + std::exp(-in[e]));
        continue;
      }
      const Real most = *std::max_element(in, in + E);
      Real sum = 0;
      for (int64_t e = 0; e < E; ++e) sum += out[e] = std::exp(in[e] - most);
      for (int64_t e = 0; e < E; ++e) out[e] /= sum;
    }
  });
}

template <class Real>
void choose_experts(const TopKShape& shape, const Real* scores, const Real* bias, int64_t* expert) {
  const int64_t E = shape.E, K = shape.K, group_size = E / shape.num_groups;
  parallel_for(shape.T, kGrain, [&](int64_t begin, int64_t end) {
    std::vector<Candidate<Real>> choice(E), groups(shape.num_groups);
    std::vector<char> kept(shape.num_groups, 1);
    for (int64_t t = begin; t < end; ++t) {
      choice.resize(E);
      for (int64_t e = 0; e < E; ++e)
        choice[e] = {comparable(scores[t * E + e] + (bias ? bias[e] : Real(0))), e};
      if (shape.groups_kept < shape.num_groups) {
        keep_groups(shape, choice, groups, kept);
        std::erase_if(choice, [&](const auto& c) { return !kept[c.index / group_size]; });
      }
      std::partial_sort(choice.begin(), choice.begin() + K, choice.end());
      int64_t* out = expert + t * K;
      for (int64_t k = 0; k < K; ++k) out[k] = choice[k].index;
      std::sort(out, out + K);
    }
  });
}

template <class Real>
void gate_values(const TopKShape& shape,
                 const Real* scores,
                 const int64_t* expert,
                 bool normalise,
                 Real scale,
                 Real* gate) {
  const int64_t E = shape.E, K = shape.K;
  parallel_for(shape.T, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      Real sum = 0;
      for (int64_t k = 0; k < K; ++k) sum += gate[t * K + k] = scores[t * E + expert[t * K + k]];
      const Real factor = normalise ? scale / (sum + Real(1e-20)) : scale;
      for (int64_t k = 0; k < K; ++k) gate[t * K + k] *= factor;
    }
  });
}

template <class Real>
void gate_values_backward(const TopKShape& shape,
                          const Real* scores,
                          const int64_t* expert,
                          const Real* d_gate,
                          bool normalise,
                          Real scale,
                          Scoring scoring,
                          Real* d_logits) {
  const int64_t E = shape.E, K = shape.K;
  parallel_for(shape.T, kGrain, [&](int64_t begin, int64_t end) {
    std::vector<Real> d_scores(E);
    for (int64_t t = begin; t < end; ++t) {
      const Real* s = scores + t * E;
      Real sum = Real(1e-20), weighted = 0;
      for (int64_t k = 0; k < K; ++k) {
        const Real chosen = s[expert[t * K + k]];
        sum += chosen;
        weighted += d_gate[t * K + k] * chosen;
      }
      // gate_k = scale s_k / sum: d s_k = scale (d_gate_k - sum_j d_gate_j s_j / sum) / sum
      std::fill(d_scores.begin(), d_scores.end(), Real(0));
      for (int64_t k = 0; k < K; ++k)
        d_scores[expert[t * K + k]] = normalise ? scale * (d_gate[t * K + k] - weighted / sum) / sum
                                                : scale * d_gate[t * K + k];
      std::fill(d_logits + t * E, d_logits + (t + 1) * E, Real(0));
      add_through_scores(scoring, E, s, d_scores.data(), d_logits + t * E);
    }
  });
}

template <class Real>
void sequence_loss(int64_t R,
                   int64_t S,
                   const TopKShape& shape,
                   const Real* scores,
                   const int64_t* expert,
                   Real* loss,
                   Real* share) {
  const int64_t E = shape.E, K = shape.K;
  parallel_for(R, 1, [&](int64_t begin, int64_t end) {
    std::vector<Real> mean(E);
    std::vector<int64_t> count(E);
    for (int64_t r = begin; r < end; ++r) {
      std::fill(mean.begin(), mean.end(), Real(0));
      std::fill(count.begin(), count.end(), int64_t{0});
      for (int64_t t = r * S; t < (r + 1) * S; ++t) {
        const Real* s = scores + t * E;
        Real sum = 0;
        for (int64_t e = 0; e < E; ++e) sum += s[e];
        for (int64_t e = 0; e < E; ++e) mean[e] += s[e] / sum;
        for (int64_t k = 0; k < K; ++k) ++count[expert[t * K + k]];
      }
      Real total = 0;
      for (int64_t e = 0; e < E; ++e) {
        // A row without a token, as at a depth of prediction beyond its end, has a loss of 0.
        const auto tokens = static_cast<Real>(std::max<int64_t>(1, S));
        share[r * E + e] =
            static_cast<Real>(count[e]) * static_cast<Real>(E) / (static_cast<Real>(K) * tokens);
        total += share[r * E + e] * mean[e] / tokens;
      }
      loss[r] = total;
    }
  });
}

template <class Real>
void sequence_loss_backward(int64_t R,
                            int64_t S,
                            const TopKShape& shape,
                            const Real* scores,
                            const Real* share,
                            Real weight,
                            Scoring scoring,
                            Real* d_logits) {
  const int64_t E = shape.E;
  parallel_for(R * S, kGrain, [&](int64_t begin, int64_t end) {
    std::vector<Real> d_scores(E);
    for (int64_t t = begin; t < end; ++t) {
      const Real* s = scores + t * E;
      const Real* f = share + t / S * E;
      Real sum = 0, weighted = 0;
      for (int64_t e = 0; e < E; ++e) {
        sum += s[e];
        weighted += f[e] * s[e];
      }
      // P's share of this token is s_e / (S sum): d s_e = weight (f_e - sum_j f_j s_j / sum) / (S
      // sum)
      for (int64_t e = 0; e < E; ++e)
        d_scores[e] = weight * (f[e] - weighted / sum) / (static_cast<Real>(S) * sum);
      add_through_scores(scoring, E, s, d_scores.data(), d_logits + t * E);
    }
  });
}

#define COHORT_INSTANTIATE(Real)                                                               \
  template void router_scores(const Real*, int64_t, int64_t, Scoring, Real*);                  \
  template void choose_experts(const TopKShape&, const Real*, const Real*, int64_t*);          \
  template void gate_values(const TopKShape&, const Real*, const int64_t*, bool, Real, Real*); \
  template void gate_values_backward(                                                          \
      const TopKShape&, const Real*, const int64_t*, const Real*, bool, Real, Scoring, Real*); \
  template void sequence_loss(                                                                 \
      int64_t, int64_t, const TopKShape&, const Real*, const int64_t*, Real*, Real*);          \
  template void sequence_loss_backward(                                                        \
      int64_t, int64_t, const TopKShape&, const Real*, const Real*, Real, Scoring, Real*);
COHORT_INSTANTIATE(float)
COHORT_INSTANTIATE(double)
#undef COHORT_INSTANTIATE

}  // namespace cohort::kernels
