// cohort upcycle: a dense model's folder becomes the start of a mixture of experts.
#include <filesystem>
#include <memory>

#include "cli/commands.h"
#include "core/base/error.h"
#include "core/base/log.h"
#include "core/config/hf_config.h"
#include "core/io/file.h"
#include "core/io/safetensors.h"
#include "distributed/checkpoint.h"
#include "distributed/launch.h"
#include "moe/upcycle.h"
#include "rl/model_folder.h"

namespace cohort::cli {
namespace {

namespace fs = std::filesystem;

struct Arguments {
  std::string source, target;
  moe::UpcycleOptions options;
  double shard_mb = 4096;
};

/// The tensors of a dense model, read one by one.
struct Source {
  std::vector<std::string> names;
  std::function<at::Tensor(const std::string&)> tensor;
};

Source open_source(const rl::ModelFolder& folder) {
  if (folder.kind == rl::ModelFolder::Kind::kCheckpoint) {
    auto reader = std::make_shared<distributed::CheckpointReader>(folder.path);
    Source source{{}, [reader](const std::string& name) { return reader->tensor(name); }};
    for (const std::string& name : reader->names())
      if (name.find('#') == std::string::npos) source.names.push_back(name);  // optimizer state
    return source;
  }
  auto files =
      std::make_shared<core::SafetensorsFolder>(core::open_safetensors_folder(folder.path));
  COHORT_CHECK_INPUT(files->faults.empty(), "{}", fmt::join(files->faults, "; "));
  Source source;
  for (const auto& [name, file_idx] : files->file_of) {
    const auto dtype = files->files[file_idx].entries().at(name).dtype;
    COHORT_CHECK_INPUT(at::isFloatingType(dtype) && c10::elementSize(dtype) >= 2,
                       "{}: tensor {} is {}; want weights in F32, F16 or BF16",
                       folder.path,
                       name,
                       core::safetensors_dtype_name(dtype));
    source.names.push_back(name);
  }
  source.tensor = [files](const std::string& name) {
    return files->files[files->file_of.at(name)].tensor(name);
  };
  return source;
}

/// Files of a folder, filled one after the other. Copies of a slice are read again for each expert:
/// at most one file's tensors are held.
class Shards {
 public:
  Shards(fs::path folder, double shard_mb)
      : folder_(std::move(folder)), most_(shard_mb * 1048576) {}

  void add(const std::string& name, at::Tensor value) {
    const auto bytes = static_cast<double>(value.nbytes());
    if (!pending_.empty() && pending_bytes_ + bytes > most_) flush();
    pending_bytes_ += bytes;
    total_bytes_ += static_cast<int64_t>(value.nbytes());
    parameters_ += value.numel();
    pending_.push_back({name, std::move(value)});
  }

  /// Writes what is left, names the files by their number and writes the index.
  void finish() {
    flush();
    if (names_.size() == 1) {
      core::rename_path(part(0), folder_ / "model.safetensors");
      return;
    }
    nlohmann::ordered_json map = nlohmann::ordered_json::object();
    for (size_t i = 0; i < names_.size(); ++i) {
      const std::string file =
          fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, names_.size());
      core::rename_path(part(i), folder_ / file);
      for (const std::string& name : names_[i]) map[name] = file;
    }
    const nlohmann::ordered_json index{{"metadata", {{"total_size", total_bytes_}}},
                                       {"weight_map", map}};
    core::write_file(folder_ / "model.safetensors.index.json", index.dump(1));
  }

  int64_t parameters() const { return parameters_; }
  int64_t bytes() const { return total_bytes_; }

 private:
  std::string part(size_t i) const { return folder_ / fmt::format("part-{}", i); }
  void flush() {
    if (pending_.empty()) return;
    core::write_safetensors(part(names_.size()), pending_, {{"format", "pt"}});
    names_.emplace_back();
    for (const auto& [name, value] : pending_) names_.back().push_back(name);
    pending_.clear();
    pending_bytes_ = 0;
  }

  fs::path folder_;
  double most_, pending_bytes_ = 0;
  std::vector<core::NamedTensor> pending_;
  std::vector<std::vector<std::string>> names_;
  int64_t parameters_ = 0, total_bytes_ = 0;
};

std::string dtype_name(at::ScalarType dtype) {
  return dtype == at::kBFloat16 ? "bfloat16"
         : dtype == at::kHalf   ? "float16"
         : dtype == at::kDouble ? "float64"
                                : "float32";
}

/// Tokenizer, chat template, sampling defaults: whatever goes with the model unchanged.
void copy_companions(const fs::path& from, const fs::path& to) {
  for (const char* name : {"tokenizer.json",
                           "tokenizer_config.json",
                           "special_tokens_map.json",
                           "added_tokens.json",
                           "vocab.json",
                           "merges.txt",
                           "chat_template.jinja",
                           "generation_config.json"})
    if (fs::is_regular_file(from / name))
      core::write_file(to / name, core::MappedFile((from / name).string()).text());
}

int run(const Arguments& arguments) {
  core::setup_logging(distributed::world_rank(), distributed::world_size());
  COHORT_CHECK_INPUT(distributed::world_size() == 1,
                     "upcycle: runs on one rank, not {}; want it started without mpirun",
                     distributed::world_size());
  const fs::path target = arguments.target;
  std::error_code ignored;
  COHORT_CHECK_INPUT(!fs::exists(target, ignored),
                     "{}: exists already; want a new folder for the result",
                     arguments.target);
  const rl::ModelFolder folder = rl::open_model_folder(arguments.source);
  const core::ModelConfig moe = moe::upcycled_config(folder.config, arguments.options);
  const Source source = open_source(folder);
  const auto plan = moe::plan_upcycling(folder.config, arguments.options, source.names);

  fs::path partial = target;
  partial += ".partial";
  fs::remove_all(partial, ignored);
  std::error_code failure;
  fs::create_directories(partial, failure);
  COHORT_CHECK_INPUT(
      !failure, "{}: cannot be made ({}); want a folder", partial.string(), failure.message());
  Shards shards(partial, arguments.shard_mb);
  for (const auto& tensor : plan)
    shards.add(tensor.name,
               moe::upcycled_tensor(tensor, moe, arguments.options.seed, source.tensor));
  shards.finish();
  nlohmann::ordered_json config = core::model_config_to_hf(moe);
  config["dtype"] = dtype_name(source.tensor("model.embed_tokens.weight").scalar_type());
  core::write_file(partial / "config.json", config.dump(2) + "\n");
  copy_companions(folder.path, partial);
  core::fsync_folder(partial);
  core::rename_path(partial, target);
  fmt::print(
      "{}: {} with {} experts of {} inner units, {} for each token{}; {} parameters, {:.1f} "
      "MB; computes what {} does\n",
      arguments.target,
      moe.model_type,
      moe.n_routed_experts,
      moe.moe_intermediate_size,
      moe.num_experts_per_tok,
      moe.n_shared_experts > 0 ? fmt::format(" and {} that all share", moe.n_shared_experts) : "",
      shards.parameters(),
      static_cast<double>(shards.bytes()) / 1e6,
      folder.path);
  return 0;
}

}  // namespace

Run add_upcycle(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  moe::UpcycleOptions& options = arguments->options;
  app.add_option("source", arguments->source, "Dense model: checkpoint, run or Hugging Face folder")
      ->required();
  app.add_option("target", arguments->target, "New Hugging Face folder")->required();
  app.add_option("--experts", options.experts, "Routed experts of each layer")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--top-k", options.top_k, "Of them for each token")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--granularity", options.granularity, "Slices that each MLP is cut into")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--shared", options.shared, "Slices that become shared experts (deepseek_v3)")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  app.add_option("--dense-layers", options.dense_layers, "First layers left dense (deepseek_v3)")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  app.add_option("--seed", options.seed, "Of the routers")->capture_default_str();
  app.add_option("--shard-mb", arguments->shard_mb, "Largest file of weights, MiB")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  return [arguments] { return run(*arguments); };
}

}  // namespace cohort::cli
