// cohort inspect DIR: what a checkpoint, a run or a Hugging Face folder holds, and whether it is
// whole.
#include <algorithm>
#include <filesystem>

#include "cli/commands.h"
#include "cli/model_summary.h"
#include "core/base/error.h"
#include "core/io/file.h"
#include "core/io/safetensors.h"
#include "distributed/checkpoint.h"
#include "distributed/checkpoint_manifest.h"

namespace cohort::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

struct Arguments {
  std::string dir;
  bool verify = false, json = false, tensors = false;
};

/// What was found: a description for stdout, and a line for stderr for each fault.
struct Findings {
  ordered_json description = ordered_json::object();
  std::vector<std::string> faults;
};

/// config.json, or null. One that is not JSON is a fault.
nlohmann::json read_config(const fs::path& folder, std::vector<std::string>& faults) {
  const fs::path path = folder / "config.json";
  if (!fs::is_regular_file(path)) return nullptr;
  const core::MappedFile file(path.string());
  auto config = nlohmann::json::parse(file.text(), nullptr, false);
  if (config.is_object()) return config;
  faults.push_back(path.string() + ": is not a JSON object");
  return nullptr;
}

void describe_model(const std::vector<TensorInfo>& tensors,
                    const nlohmann::json& config,
                    bool list_tensors,
                    ordered_json& out) {
  const ModelSummary summary = summarise(tensors, config);
  if (config.is_object() && config.contains("model_type")) out["model_type"] = config["model_type"];
  out["parameters"] = summary.parameters;
  if (summary.active) out["active_parameters"] = *summary.active;
  for (const auto& [kind, count] : summary.by_kind) out["parameters_by_kind"][kind] = count;
  for (const auto& [dtype, count] : summary.by_dtype) out["parameters_by_dtype"][dtype] = count;
  out["num_tensors"] = tensors.size();
  if (!list_tensors) return;
  out["tensors"] = ordered_json::array();
  for (const auto& tensor : tensors)
    out["tensors"].push_back({{"name", tensor.name},
                              {"dtype", core::safetensors_dtype_name(tensor.dtype)},
                              {"shape", tensor.shape}});
}

/// Faults of a checkpoint: of every byte, or those that are seen without reading the shards.
std::vector<std::string> checkpoint_faults(const std::string& path, bool verify) {
  if (verify) return distributed::verify_checkpoint(path);
  try {
    distributed::CheckpointReader reader(path);
    return {};
  } catch (const InputError& error) {
    return {error.what()};
  }
}

/// nullopt when it cannot be used; the faults say why.
std::optional<distributed::Manifest> read_manifest(const std::string& checkpoint) {
  try {
    const core::MappedFile file((fs::path(checkpoint) / distributed::kManifestName).string());
    return distributed::parse_manifest(file.text(), file.path());
  } catch (const InputError&) {
    return std::nullopt;
  }
}

int64_t total_bytes(const distributed::Manifest& manifest) {
  int64_t bytes = 0;
  for (const auto& [name, file] : manifest.files) bytes += file.bytes;
  return bytes;
}

Findings inspect_checkpoint(const std::string& path, const Arguments& arguments) {
  Findings found{{{"kind", "checkpoint"}, {"path", path}},
                 checkpoint_faults(path, arguments.verify)};
  const auto manifest = read_manifest(path);
  if (!manifest) return found;
  auto& out = found.description;
  out["step"] = manifest->step;
  out["mesh"] = manifest->mesh;
  std::vector<TensorInfo> model;
  ordered_json optimizer = ordered_json::object();
  for (const auto& [name, tensor] : manifest->tensors) {
    if (tensor.is_model()) {
      model.push_back({name, tensor.dtype, tensor.shape});
    } else {
      auto& count = optimizer[name.substr(name.rfind('#') + 1)];
      count = (count.is_null() ? 0 : count.get<int64_t>()) + tensor.numel();
    }
  }
  // A damaged config is among the faults already.
  std::vector<std::string> ignored;
  describe_model(model, read_config(path, ignored), arguments.tensors, out);
  out["optimizer"] = std::move(optimizer);
  out["files"] = ordered_json::array();
  for (const auto& [name, file] : manifest->files)
    out["files"].push_back({{"name", name}, {"bytes", file.bytes}});
  out["bytes"] = total_bytes(*manifest);
  if (arguments.json) out["state"] = manifest->state;
  return found;
}

Findings inspect_run(const std::string& folder, const Arguments& arguments) {
  Findings found{{{"kind", "run"}, {"path", folder}, {"checkpoints", ordered_json::array()}}, {}};
  for (const auto& [step, path] : distributed::checkpoints_in(folder)) {
    ordered_json entry{{"step", step}, {"path", path}};
    if (const auto manifest = read_manifest(path)) {
      entry["bytes"] = total_bytes(*manifest);
      entry["mesh"] = manifest->mesh;
    }
    const auto faults = checkpoint_faults(path, arguments.verify);
    if (arguments.verify || !faults.empty()) entry["good"] = faults.empty();
    found.faults.insert(found.faults.end(), faults.begin(), faults.end());
    found.description["checkpoints"].push_back(std::move(entry));
  }
  return found;
}

/// A model folder of Hugging Face's, or one safetensors file.
Findings inspect_weights(const std::string& path, const Arguments& arguments) {
  Findings found{{{"kind", "weights"}, {"path", path}}, {}};
  core::SafetensorsFolder folder;
  nlohmann::json config;
  if (fs::is_directory(path)) {
    folder = core::open_safetensors_folder(path);
    found.faults = folder.faults;
    config = read_config(path, found.faults);
  } else {
    folder.files.emplace_back(path);
    for (const auto& [name, entry] : folder.files[0].entries()) folder.file_of[name] = 0;
  }
  std::vector<TensorInfo> tensors;
  for (const auto& [name, file_idx] : folder.file_of) {
    const auto& entry = folder.files[file_idx].entries().at(name);
    tensors.push_back({name, entry.dtype, entry.shape});
  }
  auto& out = found.description;
  describe_model(tensors, config, arguments.tensors, out);
  out["files"] = ordered_json::array();
  int64_t bytes = 0;
  for (const auto& file : folder.files) {
    const auto size = static_cast<int64_t>(fs::file_size(file.path()));
    out["files"].push_back({{"name", fs::path(file.path()).filename()}, {"bytes", size}});
    bytes += size;
  }
  out["bytes"] = bytes;
  return found;
}

bool is_checkpoint(const fs::path& folder) {
  if (fs::exists(folder / distributed::kManifestName)) return true;
  // A checkpoint that lost its manifest still looks like a model folder: do not take it for one.
  const fs::path parent = fs::absolute(folder).lexically_normal() / "";
  for (const auto& checkpoint : distributed::checkpoints_in(parent.parent_path().parent_path()))
    if (fs::equivalent(checkpoint.path, folder)) return true;
  return std::any_of(fs::directory_iterator(folder), {}, [](const auto& entry) {
    return entry.path().filename().string().rfind("optimizer-", 0) == 0;
  });
}

Findings inspect(const Arguments& arguments) {
  const std::string& dir = arguments.dir;
  COHORT_CHECK_INPUT(fs::exists(dir), "{}: there is no such file or folder", dir);
  if (!fs::is_directory(dir)) return inspect_weights(dir, arguments);
  if (is_checkpoint(dir)) return inspect_checkpoint(dir, arguments);
  if (!distributed::checkpoints_in(dir).empty()) return inspect_run(dir, arguments);
  const fs::path inner = fs::path(dir) / "checkpoints";
  if (fs::is_directory(inner)) return inspect_run(inner.string(), arguments);
  const bool weights = std::any_of(fs::directory_iterator(dir), {}, [](const auto& entry) {
    const std::string name = entry.path().filename();
    return name.rfind("model", 0) == 0 && name.find(".safetensors") != std::string::npos;
  });
  COHORT_CHECK_INPUT(
      weights,
      "{}: holds neither manifest.json (a checkpoint), nor step-* or checkpoints/ (a "
      "run), nor model*.safetensors (Hugging Face weights)",
      dir);
  return inspect_weights(dir, arguments);
}

std::string mesh_text(const ordered_json& mesh) {
  std::string text;
  for (const auto& [axis, size] : mesh.items())
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", axis, size.dump());
  return text;
}

void print_counts(const ordered_json& counts) {
  for (const auto& [name, count] : counts.items())
    fmt::print("  {:<22}{:>20}\n", name, grouped(count.get<int64_t>()));
}

void print_run(const ordered_json& run) {
  const auto& checkpoints = run["checkpoints"];
  fmt::print("{}: {} checkpoint{}\n",
             run["path"].get<std::string>(),
             checkpoints.size(),
             checkpoints.size() == 1 ? "" : "s, newest first");
  for (const auto& entry : checkpoints)
    fmt::print("  step {:<10}{:>10}  {}{}\n",
               entry["step"].get<int64_t>(),
               entry.contains("bytes") ? readable_bytes(entry["bytes"].get<int64_t>()) : "?",
               entry.contains("mesh") ? mesh_text(entry["mesh"]) : "",
               !entry.contains("good")     ? ""
               : entry["good"].get<bool>() ? "  good"
                                           : "  DAMAGED");
}

void print_description(const ordered_json& it) {
  const auto line = [](const char* key, const std::string& value) {
    fmt::print("{:<12}{}\n", key, value);
  };
  line(it["kind"].get_ref<const std::string&>().c_str(), it["path"]);
  if (it.contains("step")) line("step", std::to_string(it["step"].get<int64_t>()));
  if (it.contains("mesh")) line("written on", mesh_text(it["mesh"]));
  if (!it.contains("parameters")) return;
  if (it.contains("model_type") && it["model_type"].is_string()) line("model", it["model_type"]);
  line("parameters",
       grouped(it["parameters"].get<int64_t>()) +
           (it.contains("active_parameters")
                ? fmt::format(", of which a token uses {}",
                              grouped(it["active_parameters"].get<int64_t>()))
                : ""));
  if (it.contains("parameters_by_kind")) print_counts(it["parameters_by_kind"]);
  if (it.contains("parameters_by_dtype")) {
    line("dtypes", "");
    print_counts(it["parameters_by_dtype"]);
  }
  if (it.contains("optimizer")) {
    line("optimizer", it["optimizer"].empty() ? "no state" : "");
    print_counts(it["optimizer"]);
  }
  line("files", fmt::format("{} in all", readable_bytes(it["bytes"].get<int64_t>())));
  for (const auto& file : it["files"])
    fmt::print("  {:<44}{:>10}\n",
               file["name"].get<std::string>(),
               readable_bytes(file["bytes"].get<int64_t>()));
  if (!it.contains("tensors"))
    return line("tensors",
                fmt::format("{} (--tensors lists them)", it["num_tensors"].get<int64_t>()));
  line("tensors", std::to_string(it["num_tensors"].get<int64_t>()));
  for (const auto& tensor : it["tensors"])
    fmt::print("  {} {} [{}]\n",
               tensor["name"].get<std::string>(),
               tensor["dtype"].get<std::string>(),
               fmt::join(tensor["shape"].get<std::vector<int64_t>>(), ", "));
}

int run(const Arguments& arguments) {
  Findings found;
  try {
    found = inspect(arguments);
  } catch (const fs::filesystem_error& error) {
    throw InputError(fmt::format("{}: {}", error.path1().string(), error.code().message()));
  }
  auto& description = found.description;
  const bool has_checksums = description["kind"] != "weights";
  if (arguments.verify) description["verified"] = has_checksums && found.faults.empty();
  if (arguments.json) {
    description["faults"] = found.faults;
    fmt::print("{}\n", description.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  } else {
    if (description["kind"] == "run")
      print_run(description);
    else
      print_description(description);
    if (arguments.verify && found.faults.empty())
      fmt::print("{:<12}{}\n",
                 "verified",
                 has_checksums ? "every byte" : "structure only: these files carry no checksums");
  }
  std::fflush(stdout);
  for (const auto& fault : found.faults) fmt::print(stderr, "cohort: {}\n", fault);
  return found.faults.empty() ? 0 : 2;
}

}  // namespace

Run add_inspect(CLI::App& app) {
  const auto arguments = std::make_shared<Arguments>();
  app.add_option("dir",
                 arguments->dir,
                 "A checkpoint (step-*), a run's folder or its checkpoints/, a Hugging Face model "
                 "folder, or one .safetensors file")
      ->required();
  app.add_flag(
      "--verify",
      arguments->verify,
      "Read every byte and compare it with its checksum; each fault is one line on stderr, "
      "and the exit code is 2");
  app.add_flag("--tensors", arguments->tensors, "List the model's tensors with dtype and shape");
  app.add_flag("--json", arguments->json, "Print one JSON object");
  return [arguments] { return run(*arguments); };
}

}  // namespace cohort::cli
