#include "moe/run_folder.h"

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/base/error.h"
#include "core/base/log.h"
#include "core/config/parse.h"
#include "core/data/indexed_dataset.h"
#include "distributed/checkpoint.h"

namespace cohort::moe {
namespace {

namespace fs = std::filesystem;

void write_text(const std::string& path, const std::string& text) {
  std::ofstream out(path, std::ios::binary);
  out << text;
  out.flush();
  COHORT_CHECK(out.good(), "cannot write {}: {}", path, std::strerror(errno));
}

/// A run that ended before its first line, as over a prompt that is too long, is none: it must not
/// stand in the way of the corrected one.
bool holds_a_run(const std::string& dir) {
  const fs::path metrics = fs::path(dir) / "metrics.jsonl",
                 checkpoints = fs::path(dir) / "checkpoints";
  std::error_code ignored;
  return (fs::exists(metrics, ignored) && fs::file_size(metrics, ignored) > 0) ||
         (fs::is_directory(checkpoints, ignored) && !fs::is_empty(checkpoints, ignored));
}

/// "key: value" lines of one section of a resolved YAML text.
std::string section(const std::string& yaml, const std::string& name) {
  std::istringstream lines(yaml);
  std::string line, out;
  bool inside = false;
  while (std::getline(lines, line)) {
    if (!line.empty() && line[0] != ' ' && line[0] != '#' && line[0] != '-')
      inside = line.rfind(name + ":", 0) == 0;
    if (inside) out += line + "\n";
  }
  return out;
}

/// The newest checkpoint of a run, or the folder itself when it is none.
std::string newest_of(const std::string& model) {
  const auto checkpoints = distributed::checkpoints_in(model + "/checkpoints");
  return checkpoints.empty() ? model : checkpoints.front().path;
}

std::string first_difference(const std::string& earlier, const std::string& now) {
  std::istringstream a(earlier), b(now);
  std::string x, y;
  const auto trimmed = [](const std::string& s) {
    const auto first = s.find_first_not_of(' ');
    return first == std::string::npos ? std::string("nothing") : s.substr(first);
  };
  while (true) {
    const bool more_a = static_cast<bool>(std::getline(a, x));
    const bool more_b = static_cast<bool>(std::getline(b, y));
    if (!more_a) x.clear();
    if (!more_b) y.clear();
    if (x != y) return fmt::format("'{}' then, '{}' now", trimmed(x), trimmed(y));
    if (!more_a && !more_b) return "";
  }
}

}  // namespace

std::string file_text(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

std::string carried_tokenizer(const core::DataConfig& data) {
  if (!data.tokenizer.empty()) {
    COHORT_CHECK_INPUT(fs::is_regular_file(data.tokenizer),
                       "data.tokenizer: there is no file '{}'",
                       data.tokenizer);
    return file_text(data.tokenizer);
  }
  if (data.train.empty()) return "";
  const std::string recorded = core::IndexedDataset(data.train[0].path).info().tokenizer;
  return fs::is_regular_file(recorded) ? file_text(recorded) : "";
}

std::vector<std::pair<std::string, std::string>> carried_files(const std::string& folder) {
  std::vector<std::pair<std::string, std::string>> files;
  for (const char* name : {"generation_config.json",
                           "tokenizer_config.json",
                           "chat_template.jinja",
                           "chat_template.json",
                           "special_tokens_map.json",
                           "added_tokens.json",
                           "vocab.json",
                           "merges.txt"})
    if (std::string text = file_text((fs::path(folder) / name).string()); !text.empty())
      files.emplace_back(name, std::move(text));
  return files;
}

RunFolder open_run_folder(const core::Config& config, const distributed::Mesh& mesh, bool resume) {
  const std::string& dir = config.run.dir;
  RunFolder folder;
  // Every rank looks before rank 0 makes anything, so that all see the same.
  const bool occupied = holds_a_run(dir);
  mesh.world->barrier();
  COHORT_CHECK_INPUT(
      resume || !occupied,
      "run.dir={} already holds a run: go on with --resume, or choose another folder",
      dir);
  std::error_code error;
  if (mesh.shape.rank == 0) fs::create_directories(fs::path(dir) / "checkpoints", error);
  COHORT_CHECK_INPUT(!error, "run.dir={} cannot be made: {}", dir, error.message());
  mesh.world->barrier();
  if (resume) {
    folder.checkpoint = distributed::newest_good_checkpoint(dir + "/checkpoints", mesh);
    if (!folder.checkpoint && mesh.shape.rank == 0)
      spdlog::info("no checkpoint in {}/checkpoints yet: starts from the beginning", dir);
  }
  if (folder.checkpoint)
    folder.carried = carried_files(*folder.checkpoint);
  else if (!config.run.model.empty())
    folder.carried = carried_files(newest_of(config.run.model));
  return folder;
}

void check_steps(const core::Config& config) {
  COHORT_CHECK_INPUT(config.train.epochs == 0,
                     "train.epochs={}: only `cohort sft` has data with an end; want train.steps",
                     config.train.epochs);
}

void write_run_records(const core::Config& config, const nlohmann::ordered_json& data_card) {
  write_text(config.run.dir + "/config.yaml", core::to_yaml(config));
  write_text(config.run.dir + "/data_card.json", data_card.dump(2) + "\n");
}

void write_run_files(const core::Config& config, const std::vector<core::DataSourceInfo>& sources) {
  nlohmann::ordered_json card{{"sources", nlohmann::ordered_json::array()}};
  for (const auto& source : sources) {
    nlohmann::ordered_json entry{{"path", source.path},
                                 {"weight", source.weight},
                                 {"documents", source.documents},
                                 {"tokens", source.tokens},
                                 {"bytes", source.bytes}};
    const std::string prepared =
        file_text((fs::path(source.path).parent_path() / "data_card.json").string());
    const auto parsed = nlohmann::ordered_json::parse(prepared, nullptr, false);
    if (!parsed.is_discarded()) entry["prepared"] = parsed;
    card["sources"].push_back(entry);
  }
  write_run_records(config, card);
}

void check_resumable(const core::Config& config,
                     const std::string& earlier_yaml,
                     const std::string& folder,
                     bool whole) {
  const std::string now_yaml = core::to_yaml(config);
  const auto difference = [&](const std::string& name) {
    return first_difference(section(earlier_yaml, name), section(now_yaml, name));
  };
  const std::string model = difference("model");
  COHORT_CHECK_INPUT(model.empty(), "{} was trained with another model: {}", folder, model);
  if (!whole) return;
  // Without run.model: the folder that the run started from need not exist any more.
  const core::Config earlier =
      core::parse_config_text(earlier_yaml, folder + "/manifest.json", {"run.model=null"});
  COHORT_CHECK_INPUT(earlier.optimizer.name == config.optimizer.name,
                     "{} holds the state of optimizer.name={}, which optimizer.name={} cannot use",
                     folder,
                     earlier.optimizer.name,
                     config.optimizer.name);
  const std::string data = difference("data");
  if (!data.empty()) spdlog::warn("resumes with other data: {}", data);
  const std::string rl = difference("rl");
  if (!rl.empty()) spdlog::warn("resumes with other rl settings: {}", rl);
  if (earlier.run.seed != config.run.seed ||
      earlier.train.global_batch != config.train.global_batch)
    spdlog::warn("resumes with another seed or global batch: the data order is not that of {}",
                 folder);
}

}  // namespace cohort::moe
