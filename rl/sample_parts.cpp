#include "rl/sample_parts.h"

#include <filesystem>
#include <fstream>
#include <sstream>

#include "core/base/error.h"
#include "core/base/log.h"
#include "core/io/file.h"
#include "core/io/xxh3.h"

namespace cohort::rl {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

std::string folder_of(const std::string& path) {
  const std::string folder = fs::path(path).parent_path().string();
  return folder.empty() ? "." : folder;
}

std::optional<std::string> content_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return std::nullopt;
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

ordered_json object_of(const std::string& path) {
  const auto text = content_of(path);
  ordered_json json = text ? ordered_json::parse(*text, nullptr, false) : ordered_json();
  return json.is_object() ? json : ordered_json();
}

struct Part {
  ordered_json head;
  std::string lines;
};

/// Nothing when the file is missing, cut or changed.
std::optional<Part> read_part(const std::string& path) {
  auto text = content_of(path);
  if (!text) return std::nullopt;
  const size_t end = text->find('\n');
  if (end == text->npos) return std::nullopt;
  Part part{ordered_json::parse(text->substr(0, end), nullptr, false), text->substr(end + 1)};
  if (!part.head.is_object() || !part.head.contains("counts") || !part.head.contains("xxh3"))
    return std::nullopt;
  if (part.head["xxh3"] != core::xxh3_hex(part.lines.data(), part.lines.size()))
    return std::nullopt;
  return part;
}

Part whole_part(const std::string& path) {
  auto part = read_part(path);
  COHORT_CHECK(part, "{}: is not there any more, or has changed since it was written", path);
  return std::move(*part);
}

void remove_all(const std::string& path) {
  std::error_code error;
  fs::remove_all(path, error);
  COHORT_CHECK_INPUT(!error, "{}: cannot be removed: {}", path, error.message());
}

}  // namespace

SampleParts::SampleParts(std::string out, ordered_json plan)
    : out_(std::move(out)), folder_(out_ + ".parts"), plan_(std::move(plan)) {}

std::string SampleParts::summary_path() const {
  return out_.substr(0, out_.size() - std::string(".jsonl").size()) + ".summary.json";
}

std::string SampleParts::part_path(int64_t part) const {
  return fmt::format("{}/part-{:08}", folder_, part);
}

void SampleParts::check_plan(const ordered_json& earlier) const {
  for (const auto& [key, value] : plan_.items()) {
    const ordered_json then = earlier.value(key, ordered_json());
    if (then == value) continue;
    const auto shown = [](const ordered_json& json) {
      const std::string text = json.dump();
      return text.size() <= 120 ? text : text.substr(0, 117) + "...";
    };
    throw InputError(
        fmt::format("{}: was begun with another {} ({} then, {} now); want the same again, another "
                    "sample.out, or --overwrite to begin anew",
                    folder_,
                    key,
                    shown(then),
                    shown(value)));
  }
}

void SampleParts::open(bool overwrite) {
  std::error_code error;
  COHORT_CHECK_INPUT(!fs::is_directory(out_, error), "{}: is a folder; want a JSONL file", out_);
  if (overwrite)
    for (const std::string& path : {out_, summary_path(), folder_}) remove_all(path);
  fs::create_directories(folder_of(out_), error);
  COHORT_CHECK_INPUT(!error, "{}: its folder cannot be made: {}", out_, error.message());
  if (finished()) return remove_all(folder_);
  COHORT_CHECK_INPUT(!fs::exists(out_, error),
                     "{}: is there already, and not from this model with these settings; want "
                     "another sample.out, or --overwrite to begin anew",
                     out_);
  const std::string path = folder_ + "/plan.json";
  if (const ordered_json earlier = object_of(path); earlier.is_object()) return check_plan(earlier);
  fs::create_directories(folder_, error);
  COHORT_CHECK_INPUT(!error, "{}: cannot be made: {}", folder_, error.message());
  core::replace_file(path, plan_.dump(2) + "\n");
}

std::optional<ordered_json> SampleParts::finished() const {
  std::error_code ignored;
  if (!fs::is_regular_file(out_, ignored)) return std::nullopt;
  ordered_json summary = object_of(summary_path());
  if (!summary.is_object() || !summary.contains("result") ||
      summary["result"] != plan_.at("result"))
    return std::nullopt;
  return summary;
}

bool SampleParts::has(int64_t part) const { return read_part(part_path(part)).has_value(); }

void SampleParts::write(int64_t part, const ordered_json& counts, const std::string& lines) const {
  const ordered_json head{{"counts", counts}, {"xxh3", core::xxh3_hex(lines.data(), lines.size())}};
  core::replace_file(part_path(part), head.dump() + "\n" + lines);
}

ordered_json SampleParts::counts(int64_t part) const {
  return whole_part(part_path(part)).head.at("counts");
}

void SampleParts::finish(int64_t count, ordered_json summary) const {
  core::FileWriter file(out_ + ".tmp");
  for (int64_t part = 0; part < count; ++part) {
    const std::string lines = whole_part(part_path(part)).lines;
    file.write(lines.data(), lines.size());
  }
  file.finish();
  // The summary first: a result is whole once it is there itself.
  core::replace_file(summary_path(), summary.dump(2) + "\n");
  core::rename_path(out_ + ".tmp", out_);
  core::fsync_folder(folder_of(out_));
  remove_all(folder_);
}

}  // namespace cohort::rl
