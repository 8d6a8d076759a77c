#include "rl/weight_source.h"

#include <charconv>
#include <cstring>
#include <set>

#include "core/base/error.h"
#include "core/config/hf_config.h"
#include "core/io/finite.h"
#include "core/io/safetensors.h"
#include "core/io/safetensors_header.h"
#include "core/io/strict_json.h"
#include "distributed/checkpoint.h"
#include "moe/tensor_list.h"

namespace cohort::rl {
namespace {

constexpr int64_t kPiece = 1 << 22;  ///< Elements in memory beside the destination.

bool is_weight_dtype(at::ScalarType dtype) {
  return dtype == at::kFloat || dtype == at::kDouble || dtype == at::kHalf ||
         dtype == at::kBFloat16;
}

/// Copies a flat tensor piece by piece; `elements(begin, end)` gives a piece.
template <class Elements>
bool copy_pieces(const at::Tensor& into, const Elements& elements) {
  at::NoGradGuard no_grad;
  const at::Tensor flat = into.view({-1});
  bool finite = true;
  for (int64_t at = 0; at < flat.numel(); at += kPiece) {
    const int64_t end = std::min(at + kPiece, flat.numel());
    const at::Tensor piece = elements(at, end);
    finite = finite && core::all_finite(piece);
    flat.narrow(0, at, end - at).copy_(piece);
  }
  return finite;
}

class CheckpointWeights final : public WeightSource {
 public:
  CheckpointWeights(const std::string& folder, bool masters) : reader_(folder) {
    for (const std::string& name : reader_.model_names()) {
      const std::string& from = masters && reader_.has(name + "#master") ? name + "#master" : name;
      from_[name] = from;
      tensors_[name] = {reader_.shape(name), reader_.dtype(from)};
      if (!is_weight_dtype(reader_.dtype(from)))
        faults_.push_back(fmt::format(
            "{} is {}, not of weights", name, core::safetensors_dtype_name(reader_.dtype(from))));
    }
  }

  bool read(const std::string& name, const at::Tensor& into) const override {
    const std::string& from = from_.at(name);
    return copy_pieces(into, [&](int64_t begin, int64_t end) {
      return reader_.elements(from, begin, end, tensors_.at(name).dtype);
    });
  }

 private:
  distributed::CheckpointReader reader_;
  std::map<std::string, std::string> from_;
};

/// Weights in F8_E4M3 are codes times a scale for each block of rows and columns (DeepSeek-V3,
/// arXiv:2412.19437, section 3.3.2): NAME holds the codes, NAME_scale_inv the factors.
class HuggingFaceWeights final : public WeightSource {
 public:
  explicit HuggingFaceWeights(const std::string& path)
      : folder_(core::open_safetensors_folder(path)) {
    if (!folder_.faults.empty())
      throw InputError(fmt::format("{}", fmt::join(folder_.faults, "\n")));
    const std::string config = path + "/config.json";
    block_ = core::fp8_block_from_hf(core::read_strict_json(config), config);
    for (const auto& [name, file_idx] : folder_.file_of) add(name);
  }

  bool read(const std::string& name, const at::Tensor& into) const override {
    if (entry(name).dtype == at::kFloat8_e4m3fn) return read_blocks(name, into);
    return copy_pieces(
        into, [&](int64_t begin, int64_t end) { return file(name).elements(name, begin, end); });
  }

 private:
  static constexpr const char* kScale = "_scale_inv";

  const core::SafetensorsFile& file(const std::string& name) const {
    return folder_.files[folder_.file_of.at(name)];
  }
  const core::SafetensorsEntry& entry(const std::string& name) const {
    return file(name).entries().at(name);
  }
  bool in_folder(const std::string& name) const { return folder_.file_of.contains(name); }

  bool is_scale(const std::string& name) const {
    const size_t length = std::strlen(kScale);
    if (!name.ends_with(kScale)) return false;
    const std::string weight = name.substr(0, name.size() - length);
    return in_folder(weight) && entry(weight).dtype == at::kFloat8_e4m3fn;
  }

  void add(const std::string& name) {
    if (is_scale(name)) return;  // Checked with its weight.
    const auto& [dtype, shape, begin, end] = entry(name);
    if (dtype == at::kFloat8_e4m3fn) {
      check_blocks(name, shape);
      tensors_[name] = {shape, at::kBFloat16};
      return;
    }
    tensors_[name] = {shape, dtype};
    if (!is_weight_dtype(dtype))
      faults_.push_back(
          fmt::format("{} is {}; want weights in F32, F16 or BF16, or F8_E4M3 in "
                      "blocks with {}",
                      core::in_quotes(name),
                      core::safetensors_dtype_name(dtype),
                      kScale));
  }

  void check_blocks(const std::string& name, const std::vector<int64_t>& shape) {
    const std::string scale = name + kScale;
    if (!in_folder(scale)) {
      faults_.push_back(fmt::format("{} is F8_E4M3 and {} is missing", name, scale));
      return;
    }
    const auto& [dtype, found, begin, end] = entry(scale);
    std::vector<int64_t> right;
    for (size_t i = 0; i < shape.size() && i < 2; ++i)
      right.push_back((shape[i] + block_[i] - 1) / block_[i]);
    if (shape.size() != 2 || found != right)
      faults_.push_back(fmt::format("{} is [{}], not [{}] ({} x {} weights a scale)",
                                    scale,
                                    fmt::join(found, ", "),
                                    fmt::join(right, ", "),
                                    block_[0],
                                    block_[1]));
    if (!is_weight_dtype(dtype))
      faults_.push_back(
          fmt::format("{} is {}, want F32", scale, core::safetensors_dtype_name(dtype)));
  }

  /// A row of blocks at a time.
  bool read_blocks(const std::string& name, const at::Tensor& into) const {
    at::NoGradGuard no_grad;
    const std::string scale_name = name + kScale;
    const int64_t rows = into.size(0), columns = into.size(1);
    const at::Tensor scales = file(scale_name).tensor(scale_name).to(at::kFloat);
    bool finite = true;
    for (int64_t row = 0; row < rows; row += block_[0]) {
      const int64_t count = std::min(block_[0], rows - row);
      const at::Tensor values = file(name)
                                    .elements(name, row * columns, (row + count) * columns)
                                    .view({count, columns})
                                    .to(at::kFloat);
      for (int64_t column = 0; column < columns; column += block_[1])
        values.narrow(1, column, std::min(block_[1], columns - column))
            .mul_(scales[row / block_[0]][column / block_[1]]);
      finite = finite && core::all_finite(values);
      into.narrow(0, row, count).copy_(values);
    }
    return finite;
  }

  core::SafetensorsFolder folder_;
  std::array<int64_t, 2> block_{};
};

/// N of "model.layers.N.rest", or -1.
int64_t layer_of(const std::string& name) {
  constexpr std::string_view kPrefix = "model.layers.";
  if (!name.starts_with(kPrefix)) return -1;
  int64_t layer = -1;
  std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), layer);
  return layer;
}

/// Whether the whole layer is a prediction module that the config leaves out.
bool in_left_out_module(const core::ModelConfig& config,
                        const WeightSource& source,
                        const std::string& name) {
  const int64_t layer = layer_of(name);
  return layer >= config.num_hidden_layers + config.num_nextn_predict_layers &&
         source.has(fmt::format("model.layers.{}.eh_proj.weight", layer));
}

bool equal(const WeightSource& source, const std::string& a, const std::string& b) {
  const auto& info = source.tensors().at(a);
  if (info.shape != source.tensors().at(b).shape) return false;
  const auto whole = [&](const std::string& name) {
    const at::Tensor values = at::empty(info.shape, at::dtype(source.tensors().at(name).dtype));
    source.read(name, values);
    return values;
  };
  return at::equal(whole(a).to(at::kFloat), whole(b).to(at::kFloat));
}

}  // namespace

std::unique_ptr<WeightSource> open_checkpoint_weights(const std::string& folder, bool masters) {
  return std::make_unique<CheckpointWeights>(folder, masters);
}

std::unique_ptr<WeightSource> open_hugging_face_weights(const std::string& folder) {
  return std::make_unique<HuggingFaceWeights>(folder);
}

std::vector<std::string> weight_faults(const core::ModelConfig& config,
                                       const WeightSource& source) {
  constexpr size_t kMost = 1000;
  std::vector<std::string> faults;
  std::set<std::string> known;
  const auto report = [&](std::string fault) {
    if (faults.size() < kMost)
      faults.push_back(std::move(fault));
    else if (faults.size() == kMost)
      faults.push_back("and more");
    return faults.size() <= kMost;
  };
  bool all_seen = true;
  moe::for_each_tensor(config, [&](const moe::TensorSpec& spec) {
    const auto found = source.tensors().find(spec.name);
    if (found == source.tensors().end()) return all_seen = report(spec.name + " is missing");
    known.insert(spec.name);
    if (found->second.shape == spec.shape) return true;
    return all_seen = report(fmt::format("{} is [{}], not [{}]",
                                         spec.name,
                                         fmt::join(found->second.shape, ", "),
                                         fmt::join(spec.shape, ", ")));
  });
  for (const std::string& fault : source.faults()) report(fault);
  if (!all_seen) return faults;  // What the model has besides was not looked at.
  for (const auto& copy : moe::possible_copies(config)) known.insert(copy.name);
  for (const auto& [name, info] : source.tensors())
    if (!known.contains(name) && !in_left_out_module(config, source, name) &&
        !name.ends_with(".rotary_emb.inv_freq"))  // computed, and kept by old versions
      report(fmt::format("{} is none of the model's tensors", core::in_quotes(name)));
  return faults;
}

std::vector<std::string> check_copies(const core::ModelConfig& config, const WeightSource& source) {
  std::vector<std::string> found, faults;
  for (const auto& [name, of] : moe::possible_copies(config)) {
    if (!source.has(name)) continue;
    found.push_back(name);
    if (!equal(source, name, of))
      faults.push_back(
          fmt::format("{} differs from {}, which the model uses in its place", name, of));
  }
  COHORT_CHECK_INPUT(faults.empty(), "{}", fmt::join(faults, "\n"));
  return found;
}

int64_t count_prediction_modules(const core::ModelConfig& config, const WeightSource& source) {
  for (int64_t count = 0;; ++count) {
    const std::string prefix = fmt::format("model.layers.{}.", config.num_hidden_layers + count);
    const auto first = source.tensors().lower_bound(prefix);
    const bool any = first != source.tensors().end() && first->first.starts_with(prefix);
    const bool announced = count < config.num_nextn_predict_layers;
    if (!any || (!announced && !source.has(prefix + "eh_proj.weight"))) return count;
  }
}

std::string fault_message(const std::string& path, const std::vector<std::string>& faults) {
  std::string message;
  for (const std::string& fault : faults)
    message += (message.empty() ? "" : "\n") + path + ": " + fault;
  return message;
}

}  // namespace cohort::rl
