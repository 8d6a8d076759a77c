#include "moe/validate.h"

#include <algorithm>
#include <cmath>

#include "moe/pretrain_loss.h"

namespace cohort::moe {

Validation validate(Transformer& model,
                    const core::ValidationSet& set,
                    int64_t micro_batch,
                    int64_t max_rows,
                    const distributed::Mesh& mesh) {
  const int64_t rows = max_rows > 0 ? std::min(max_rows, set.num_rows()) : set.num_rows();
  at::Tensor sums = at::zeros({2}, at::kDouble);
  for (int64_t round = 0; round < rows; round += micro_batch * mesh.shape.dp) {
    // Every rank makes as many passes, because experts are shared: one without rows left repeats the
    // first row and does not count it.
    const int64_t first = round + micro_batch * mesh.shape.dp_rank;
    const int64_t count = std::clamp<int64_t>(rows - first, 0, micro_batch);
    const NatsSum sum = next_token_nats(model, count > 0 ? set.rows(first, count) : set.rows(0, 1));
    if (count == 0) continue;
    sums[0] += sum.nats;
    sums[1] += static_cast<double>(sum.targets);
  }
  mesh.dp->all_reduce(sums);
  Validation result;
  const double nats = sums[0].item<double>(), targets = sums[1].item<double>();
  result.targets = static_cast<int64_t>(targets);
  if (targets == 0) return result;
  result.loss = nats / targets;
  const double all_targets = static_cast<double>(set.num_tokens() - set.num_documents());
  const double bytes = static_cast<double>(set.num_bytes()) * targets / all_targets;
  if (bytes > 0) result.bits_per_byte = nats / (std::log(2.0) * bytes);
  return result;
}

}  // namespace cohort::moe
