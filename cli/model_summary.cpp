#include "cli/model_summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "core/io/safetensors.h"

namespace cohort::cli {
namespace {

struct Kind {
  const char* name;
  std::vector<const char*> marks;  ///< One of them in a tensor's name tells the kind.
};

/// The first that fits counts.
const std::vector<Kind>& kinds() {
  static const std::vector<Kind> all{
      {"embeddings and head", {"embed_tokens", "lm_head", "shared_head.head"}},
      {"attention", {"self_attn."}},
      {"dense MLP", {}},
      {"shared experts", {".shared_experts.", ".shared_expert."}},
      {"routed experts", {".mlp.experts."}},
      {"router", {".mlp.gate.", ".shared_expert_gate."}},
      {"norms", {"norm."}},
      {"other", {}}};
  return all;
}

std::string kind_of(const std::string& name) {
  for (const auto& kind : kinds())
    for (const char* mark : kind.marks)
      if (name.find(mark) != std::string::npos) return kind.name;
  return name.find(".mlp.") != std::string::npos ? "dense MLP" : "other";
}

std::optional<int64_t> number(const nlohmann::json& config, const std::vector<const char*>& keys) {
  if (!config.is_object()) return std::nullopt;
  for (const char* key : keys)
    if (const auto found = config.find(key); found != config.end() && found->is_number_integer())
      return found->get<int64_t>();
  return std::nullopt;
}

}  // namespace

int64_t TensorInfo::numel() const {
  int64_t count = 1;
  for (const int64_t dim : shape) count *= dim;
  return count;
}

ModelSummary summarise(const std::vector<TensorInfo>& tensors, const nlohmann::json& config) {
  ModelSummary summary;
  std::map<std::string, int64_t> counts, dtypes;
  for (const auto& tensor : tensors) {
    const int64_t numel = tensor.numel();
    summary.parameters += numel;
    counts[kind_of(tensor.name)] += numel;
    dtypes[core::safetensors_dtype_name(tensor.dtype)] += numel;
  }
  for (const auto& kind : kinds())
    if (counts.count(kind.name)) summary.by_kind.emplace_back(kind.name, counts[kind.name]);
  summary.by_dtype.assign(dtypes.begin(), dtypes.end());
  std::stable_sort(summary.by_dtype.begin(), summary.by_dtype.end(), [](auto& a, auto& b) {
    return a.second > b.second;
  });
  const int64_t routed = counts["routed experts"];
  const auto experts = number(config, {"n_routed_experts", "num_experts", "num_local_experts"});
  const auto chosen = number(config, {"num_experts_per_tok"});
  if (routed == 0 && config.is_object())
    summary.active = summary.parameters;
  else if (experts && chosen && *experts > 0 && 0 <= *chosen && *chosen <= *experts)
    summary.active = summary.parameters - routed + routed / *experts * *chosen;
  return summary;
}

std::string grouped(int64_t number) {
  std::string digits = std::to_string(number);
  for (size_t at = digits.size(); at > 3 + (number < 0); at -= 3) digits.insert(at - 3, 1, ',');
  return digits;
}

std::string readable_bytes(int64_t bytes) {
  if (bytes < 1000) return fmt::format("{} B", bytes);
  double value = static_cast<double>(bytes);
  const char* unit = "B";
  for (const char* next : {"kB", "MB", "GB", "TB", "PB"}) {
    if (value < 999.95) break;
    value /= 1000;
    unit = next;
  }
  return fmt::format("{:.1f} {}", value, unit);
}

}  // namespace cohort::cli
