#include "rl/log_likelihood.h"

#include <algorithm>

#include "core/base/error.h"
#include "core/nn/token_log_probs.h"
#include "rl/white_space.h"

namespace cohort::rl {
namespace {

/// Tokens of a pass, unless one request alone has more.
constexpr int64_t kPassTokens = 4096;

/// Requests [first, last) that make one forward pass.
struct Pass {
  size_t first, last;
};

/// Tokens that the model reads for a request: all but the last of what counts.
int64_t inputs_of(const LikelihoodRequest& request, int64_t window) {
  const auto all = static_cast<int64_t>(request.context.size() + request.continuation.size());
  return std::min(all, window + 1) - 1;
}

std::vector<Pass> passes_of(std::span<const LikelihoodRequest> requests, int64_t window) {
  std::vector<Pass> passes;
  int64_t tokens = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    const int64_t more = inputs_of(requests[i], window);
    if (passes.empty() || tokens + more > kPassTokens) {
      passes.push_back({i, i});
      tokens = 0;
    }
    passes.back().last = i + 1;
    tokens += more;
  }
  return passes;
}

at::Tensor int64_tensor(const std::vector<int64_t>& values) {
  at::Tensor out = at::empty({static_cast<int64_t>(values.size())}, at::kLong);
  std::copy(values.begin(), values.end(), out.data_ptr<int64_t>());
  return out;
}

/// Requests end to end in one row, a document each: no padding.
struct Row {
  std::vector<int64_t> ids, predicts, target;
  core::AttentionLayout layout;

  void add(const LikelihoodRequest& request, int64_t window) {
    const auto first = static_cast<int64_t>(ids.size());
    const int64_t count = inputs_of(request, window);
    const auto given = static_cast<int64_t>(request.context.size());
    const auto all = given + static_cast<int64_t>(request.continuation.size());
    const auto token = [&](int64_t i) {
      return i < given ? request.context[i] : request.continuation[i - given];
    };
    for (int64_t i = all - count - 1; i < all - 1; ++i) ids.push_back(token(i));
    layout.runs.push_back({0, first, count, 0});
    for (int64_t i = given; i < all; ++i) {
      predicts.push_back(first + count - (all - i));
      target.push_back(token(i));
    }
  }
};

/// Log-probability and whether it is the likeliest, for each scored token of a pass in order.
core::TokenScores score(moe::Transformer& model,
                        std::span<const LikelihoodRequest> requests,
                        int64_t window) {
  Row row;
  for (const auto& request : requests) row.add(request, window);
  row.layout.batch = 1;
  row.layout.seq_len = static_cast<int64_t>(row.ids.size());
  row.layout.one_run_a_row = requests.size() == 1;
  const at::Tensor hidden =
      model.forward(int64_tensor(row.ids).unsqueeze(0), row.layout, {}).hidden.squeeze(0);
  const at::Tensor predicts = int64_tensor(row.predicts).to(hidden.device(), /*non_blocking=*/true);
  return core::score_tokens(
      hidden.index_select(0, predicts), model.head(), int64_tensor(row.target));
}

void check(std::span<const LikelihoodRequest> requests, int64_t window) {
  for (const auto& request : requests) {
    const auto scored = static_cast<int64_t>(request.continuation.size());
    COHORT_CHECK(!request.context.empty() && scored >= 1 && scored <= window,
                 "{} tokens to score behind {}, in a window of {}",
                 scored,
                 request.context.size(),
                 window);
  }
}

}  // namespace

LikelihoodRequest likelihood_request(const core::Tokenizer& tokenizer,
                                     std::string_view context,
                                     std::string_view continuation,
                                     int32_t prefix_token,
                                     bool always_prefix) {
  const std::string joined = std::string(context) + std::string(continuation);
  LikelihoodRequest request;
  request.context = tokenizer.encode(context.substr(0, trailing_white_space(context)));
  const std::vector<int32_t> whole = tokenizer.encode(joined);
  const size_t given = std::min(request.context.size(), whole.size());
  request.continuation.assign(whole.begin() + static_cast<std::ptrdiff_t>(given), whole.end());
  std::vector<int32_t>& scored = request.continuation;
  if (request.context.empty()) {
    // A text that begins with the prefix token brings its own.
    if (!scored.empty() && scored[0] == prefix_token) scored.erase(scored.begin());
    request.context = {prefix_token};
  } else if (always_prefix && request.context[0] != prefix_token) {
    request.context.insert(request.context.begin(), prefix_token);
  }
  return request;
}

std::vector<LikelihoodRequest> rolling_windows(std::span<const int32_t> tokens,
                                               int32_t prefix_token,
                                               int64_t window,
                                               int64_t stride) {
  COHORT_CHECK(stride >= 1 && stride <= window, "a stride of {} in a window of {}", stride, window);
  std::vector<LikelihoodRequest> requests;
  const auto count = static_cast<int64_t>(tokens.size());
  for (int64_t done = 0; done < count;) {
    const int64_t end = std::min(count, done == 0 ? window : done + stride);
    LikelihoodRequest request;
    if (done == 0)
      request.context.push_back(prefix_token);
    else  // at least `window` tokens lie before the last one
      request.context.assign(tokens.begin() + (end - window - 1), tokens.begin() + done);
    request.continuation.assign(tokens.begin() + done, tokens.begin() + end);
    requests.push_back(std::move(request));
    done = end;
  }
  return requests;
}

std::vector<Likelihood> log_likelihoods(moe::Transformer& model,
                                        const distributed::Mesh& mesh,
                                        std::span<const LikelihoodRequest> requests,
                                        int64_t window) {
  at::NoGradGuard no_grad;
  check(requests, window);
  const std::vector<Pass> passes = passes_of(requests, window);
  const auto ranks = static_cast<size_t>(mesh.shape.dp);
  const auto rank = static_cast<size_t>(mesh.shape.dp_rank);
  // Sums over ranks of a table that each fills in its own places: the same bits on any mesh.
  at::Tensor table = at::zeros({static_cast<int64_t>(requests.size()), 2}, at::kDouble);
  double* const sums = table.data_ptr<double>();
  for (size_t round = 0; round < passes.size(); round += ranks) {
    // Every rank makes as many passes, because experts are shared: one without requests left
    // repeats the first and does not count it.
    const bool counts = round + rank < passes.size();
    const Pass pass = passes[counts ? round + rank : 0];
    const auto part = requests.subspan(pass.first, pass.last - pass.first);
    const core::TokenScores scores = score(model, part, window);
    if (!counts) continue;
    const double* log_prob = scores.log_prob.const_data_ptr<double>();
    const bool* likeliest = scores.likeliest.const_data_ptr<bool>();
    for (size_t i = pass.first, at = 0; i < pass.last; ++i) {
      double* const sum = sums + 2 * i;
      sum[1] = 1;
      for (size_t j = 0; j < requests[i].continuation.size(); ++j, ++at) {
        sum[0] += log_prob[at];
        if (!likeliest[at]) sum[1] = 0;
      }
    }
  }
  mesh.dp->all_reduce(table);
  std::vector<Likelihood> out(requests.size());
  for (size_t i = 0; i < out.size(); ++i) out[i] = {sums[2 * i], sums[2 * i + 1] > 0.5};
  return out;
}

}  // namespace cohort::rl
