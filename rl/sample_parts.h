// The files of `cohort sample` while it is at work, such that it may be killed at any moment.
//
//   OUT.jsonl.parts/plan.json        what is drawn by which model
//   OUT.jsonl.parts/part-00000003    a part of the problems: one line of JSON with its counts, its
//                                    size and hash, then its lines of the result
//   OUT.summary.json, OUT.jsonl      once all parts are there; the folder goes
//
// Every file is written beside its place, put on the disk and renamed.
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace cohort::rl {

/// For one process; not collective.
class SampleParts {
 public:
  /// `out` ends in .jsonl. Two runs write the same result exactly when their `plan`s are equal, an
  /// object whose "result" is a text that tells results apart.
  SampleParts(std::string out, nlohmann::ordered_json plan);

  /// Goes on where another left off, and throws InputError when that had another plan, naming what
  /// differs, or when `out` is there and this plan has not made it. `overwrite`: removes all that
  /// stands there first.
  void open(bool overwrite);
  /// The summary, when the result is whole.
  std::optional<nlohmann::ordered_json> finished() const;

  /// Whether the part is there, whole.
  bool has(int64_t part) const;
  /// `lines` end in a newline, or are nothing.
  void write(int64_t part, const nlohmann::ordered_json& counts, const std::string& lines) const;
  nlohmann::ordered_json counts(int64_t part) const;
  /// Joins parts 0 .. count - 1 to `out`, and writes the summary beside it.
  void finish(int64_t count, nlohmann::ordered_json summary) const;

  const std::string& out() const { return out_; }
  std::string summary_path() const;

 private:
  std::string part_path(int64_t part) const;
  void check_plan(const nlohmann::ordered_json& earlier) const;

  std::string out_, folder_;
  nlohmann::ordered_json plan_;
};

}  // namespace cohort::rl
