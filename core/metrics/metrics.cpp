#include "core/metrics/metrics.h"

#include <chrono>
#include <ctime>
#include <filesystem>
#include <limits>
#include <optional>

#include "core/base/error.h"
#include "core/metrics/append_file.h"
#include "core/metrics/progress.h"
#include "core/metrics/tensorboard.h"

namespace cohort::core {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

/// A new run starts with empty logs; a resumed one with those of the steps it stands on.
void prepare_folder(const fs::path& dir, int64_t resume_step) {
  std::error_code error;
  fs::create_directories(dir, error);
  COHORT_CHECK_INPUT(fs::is_directory(dir),
                     "run.dir {}: cannot be made ({})",
                     dir.string(),
                     error ? error.message() : "a file is in the way");
  if (resume_step >= 0) {
    cut_after_step((dir / "metrics.jsonl").string(), resume_step);
    cut_after_step((dir / "experts.jsonl").string(), resume_step);
    cut_after_step((dir / "samples.jsonl").string(), resume_step);
    cut_after_step((dir / "events.jsonl").string(), std::numeric_limits<int64_t>::max());
    return;
  }
  for (const char* name : {"metrics.jsonl", "experts.jsonl", "samples.jsonl", "events.jsonl"})
    fs::remove(dir / name, error);
  if (fs::is_directory(dir / "tensorboard"))
    for (const auto& entry : fs::directory_iterator(dir / "tensorboard"))
      if (entry.path().filename().string().starts_with("events.out.tfevents."))
        fs::remove(entry.path(), error);
}

/// `values` as one line with the step in front. JSON has no NaN and no infinity: null stands for
/// them (the library's rule for floats). Bytes that are no UTF-8 are replaced.
std::string line_of(int64_t step, const ordered_json& values) {
  ordered_json line = {{"step", step}};
  for (const auto& [key, value] : values.items())
    if (key != "step") line[key] = value;
  return line.dump(-1, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  ::gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

}  // namespace

struct RunLog::State {
  State(const fs::path& dir, int64_t total_steps, int64_t resume_step)
      : metrics((dir / "metrics.jsonl").string()),
        experts((dir / "experts.jsonl").string()),
        events((dir / "events.jsonl").string()),
        tensorboard((dir / "tensorboard").string(), resume_step + 1),
        progress(total_steps),
        samples_path((dir / "samples.jsonl").string()) {}

  AppendFile metrics, experts, events;
  TensorBoardFile tensorboard;
  ProgressLine progress;
  const std::string samples_path;
  std::optional<AppendFile> samples;  // opened by the first samples: other runs have no such file
};

RunLog::RunLog(const std::string& dir, int64_t total_steps, int64_t resume_step) {
  prepare_folder(dir, resume_step);
  state_ = std::make_unique<State>(dir, total_steps, resume_step);
  const bool resumed = resume_step >= 0;
  state_->events.append(line_of(resumed ? resume_step : 0,
                                {{"event", resumed ? "resumed" : "started"},
                                 {"total_steps", total_steps},
                                 {"time", utc_now()}}));
}

RunLog::~RunLog() = default;

void RunLog::step(int64_t step, const ordered_json& scalars) {
  state_->metrics.append(line_of(step, scalars));
  TagValues values;
  for (const auto& [key, value] : scalars.items())
    if (value.is_number() && key != "step") values.emplace_back(key, value.get<float>());
  state_->tensorboard.scalars(step, values);
}

void RunLog::expert_loads(int64_t step, const ordered_json& loads) {
  state_->experts.append(line_of(step, loads));
}

void RunLog::samples(int64_t step, const std::vector<ordered_json>& lines) {
  std::string record;
  for (const ordered_json& line : lines) record += line_of(step, line);
  if (record.empty()) return;
  if (!state_->samples) state_->samples.emplace(state_->samples_path);
  state_->samples->append(record);
}

void RunLog::note(int64_t step, const std::string& event, const std::string& text) {
  state_->events.append(line_of(step, {{"event", event}, {"text", text}, {"time", utc_now()}}));
}

void RunLog::progress(int64_t step, const ordered_json& scalars) {
  state_->progress.show(step, scalars);
}

}  // namespace cohort::core
