#include "core/metrics/report_data.h"

#include <algorithm>
#include <cmath>
#include <ctime>
#include <deque>
#include <fstream>
#include <map>
#include <numeric>
#include <optional>
#include <set>

#include "core/base/error.h"
#include "core/metrics/curve.h"
#include "core/metrics/report_lines.h"
#include "core/metrics/report_samples.h"

namespace cohort::core {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

// Together these keep the page of any run under 3 MB.
constexpr size_t kBinsOfACurve = 1000;
constexpr size_t kBinsOfAllCurves = 40000;
constexpr size_t kLoadCells = 900000;
constexpr size_t kEvents = 200;
constexpr size_t kListEntries = 200;
constexpr size_t kConfigBytes = 200000;
constexpr size_t kEndSteps = 10;     // of an RL run, whose steps are long and few
constexpr size_t kRecentSteps = 50;  // a noisy figure is the mean over so many last steps

/// First number called `key` anywhere in `value`.
std::optional<double> find_number(const ordered_json& value, const char* key) {
  if (value.is_object())
    if (const auto here = finite(value, key)) return here;
  if (value.is_structured())
    for (const auto& child : value)
      if (const auto below = find_number(child, key)) return below;
  return {};
}

ordered_json read_json(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return nullptr;
  ordered_json value = ordered_json::parse(in, nullptr, false);
  return value.is_discarded() ? ordered_json("not valid JSON") : value;
}

ordered_json read_text(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return nullptr;
  std::string text(kConfigBytes, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(in.gcount()));
  if (in.peek() != std::ifstream::traits_type::eof()) text += "\n... (cut here)";
  return text;
}

/// A card of ten thousand sources is a file of its own, not a page.
void cut_long_lists(ordered_json& value) {
  if (value.is_array() && value.size() > kListEntries) {
    const size_t more = value.size() - kListEntries;
    value.erase(value.begin() + kListEntries, value.end());
    value.push_back(fmt::format("... and {} more", more));
  }
  if (value.is_structured())
    for (auto& child : value) cut_long_lists(child);
}

/// Errors end a listing early, since a run that goes on removes old checkpoints meanwhile.
uintmax_t folder_bytes(const fs::path& folder) {
  uintmax_t bytes = 0;
  std::error_code error;
  for (fs::recursive_directory_iterator it(folder, error), end; !error && it != end;
       it.increment(error)) {
    std::error_code gone;
    if (it->is_regular_file(gone)) bytes += it->file_size(gone);
  }
  return bytes;
}

ordered_json list_checkpoints(const fs::path& folder) {
  std::map<std::string, uintmax_t> sizes;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    std::error_code gone;
    if (it->is_directory(gone)) sizes[it->path().filename().string()] = folder_bytes(it->path());
  }
  ordered_json list = ordered_json::array();
  for (const auto& [name, bytes] : sizes) list.push_back({{"name", name}, {"bytes", bytes}});
  return list;
}

/// A noisy value at the start and at the end of a run: means over a few steps, over fewer in a
/// short run, so that the two stay apart.
class Ends {
 public:
  void add(double value) {
    ++count_;
    if (first_.size() < kEndSteps) first_.push_back(value);
    last_.push_back(value);
    if (last_.size() > kEndSteps) last_.pop_front();
  }
  size_t steps() const { return std::clamp<size_t>(count_ / 4, 1, kEndSteps); }
  double first() const {
    return std::accumulate(first_.begin(), first_.begin() + reach(), 0.0) /
           static_cast<double>(steps());
  }
  double last() const {
    return std::accumulate(last_.end() - reach(), last_.end(), 0.0) / static_cast<double>(steps());
  }

 private:
  std::ptrdiff_t reach() const { return static_cast<std::ptrdiff_t>(steps()); }
  size_t count_ = 0;
  std::vector<double> first_;
  std::deque<double> last_;
};

/// Everything that one pass over metrics.jsonl gives.
class Scalars {
 public:
  void add(const ordered_json& line) {
    const auto step = step_of(line);
    if (!step) return;
    step_ = *step;
    std::string not_finite;
    for (const auto& [key, value] : line.items()) {
      if (key == "step") continue;
      const auto number = finite(line, key.c_str());
      if (number) curves_.try_emplace(key, kBinsOfACurve).first->second.add(step_, *number);
      if (value.is_null()) not_finite += (not_finite.empty() ? "not finite: " : ", ") + key;
    }
    for (const char* key : {"loss", "lm_loss", "tokens", "wall_seconds"})
      if (const auto v = finite(line, key)) figures_[key] = *v;
    if (const auto v = finite(line, "tokens_per_second")) rates_.push_back(static_cast<float>(*v));
    const double skipped = finite(line, "skipped_steps").value_or(0);
    const bool one_more = skipped > figures_.value("skipped_steps", 0.0);
    if (line.contains("skipped_steps")) figures_["skipped_steps"] = skipped;
    if (one_more || !not_finite.empty()) note(one_more ? "skipped" : "logged", not_finite);
    if (const auto v = finite(line, "max_vio")) add_recent(*v);
    add_validation(line);
    add_rl(line);
  }

  ordered_json figures() {
    if (step_ >= 0) figures_["step"] = step_;
    if (!rates_.empty()) figures_["tokens_per_second"] = median(rates_);
    if (!generate_rates_.empty()) figures_["generate_tokens_per_second"] = median(generate_rates_);
    for (const auto& [key, ends] : ends_) {
      figures_[key] = ends.last();
      figures_[key + "_first"] = ends.first();
      figures_["rl_mean_steps"] = ends.steps();
    }
    double sum = 0;
    for (const double v : max_vio_) sum += v;
    if (!max_vio_.empty()) figures_["max_vio"] = sum / static_cast<double>(max_vio_.size());
    return figures_;
  }

  ordered_json curves() {
    const size_t share = kBinsOfAllCurves / std::max<size_t>(1, curves_.size());
    ordered_json result = ordered_json::object();
    for (auto& [key, curve] : curves_) {
      curve.shrink(std::clamp<size_t>(share, 20, 2 * kBinsOfACurve));
      result[key] = curve.json();
    }
    return result;
  }

  const std::vector<ordered_json>& events() const { return events_; }
  int64_t events_left_out() const { return left_out_; }

 private:
  void note(const char* event, const std::string& text) {
    if (events_.size() < kEvents)
      events_.push_back({{"step", step_}, {"event", event}, {"text", text}});
    else
      ++left_out_;
  }

  void add_recent(double max_vio) {
    max_vio_.push_back(max_vio);
    if (max_vio_.size() > kRecentSteps) max_vio_.pop_front();
  }

  void add_validation(const ordered_json& line) {
    const auto loss = finite(line, "val_loss");
    if (loss && (!figures_.contains("val_loss") || *loss < figures_["val_loss"].get<double>())) {
      figures_["val_loss"] = *loss;
      figures_["val_loss_step"] = step_;
    }
    const auto bits = finite(line, "val_bits_per_byte");
    if (bits)
      figures_["val_bits_per_byte"] = std::min(*bits, figures_.value("val_bits_per_byte", *bits));
  }

  void add_rl(const ordered_json& line) {
    if (const auto pass = finite(line, "eval_pass_at_1")) {
      for (const char* suffix : {"_first", ""}) {
        if (*suffix && figures_.contains("eval_pass_at_1")) continue;
        figures_[std::string("eval_pass_at_1") + suffix] = *pass;
        figures_[std::string("eval_step") + suffix] = step_;
      }
    }
    if (const auto problems = finite(line, "eval_problems")) figures_["eval_problems"] = *problems;
    for (const char* key : {"reward_mean", "pass_rate", "completion_tokens_mean"})
      if (const auto v = finite(line, key)) ends_[key].add(*v);
    for (const char* key : {"logp_drift_max", "routing_mismatch"})
      if (const auto v = finite(line, key)) figures_[key] = std::max(*v, figures_.value(key, *v));
    if (const auto v = finite(line, "generate_tokens_per_second"))
      generate_rates_.push_back(static_cast<float>(*v));
  }

  static float median(std::vector<float>& values) {
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
  }

  int64_t step_ = -1;
  std::map<std::string, Curve> curves_;
  ordered_json figures_ = ordered_json::object();
  std::vector<float> rates_, generate_rates_;
  std::map<std::string, Ends> ends_;
  std::deque<double> max_vio_;
  std::vector<ordered_json> events_;
  int64_t left_out_ = 0;
};

/// What the page shows of a line of events.jsonl, each field of the type it must have.
ordered_json known_fields(const ordered_json& event) {
  ordered_json known = ordered_json::object();
  if (const auto step = step_of(event)) known["step"] = *step;
  if (const auto total = finite(event, "total_steps")) known["total_steps"] = *total;
  for (const char* key : {"event", "text", "time"})
    if (event.contains(key) && event[key].is_string()) known[key] = event[key];
  return known;
}

/// Of a run's own notes and of what its numbers show, in the order of steps.
ordered_json gather_events(const fs::path& dir, const Scalars& scalars, int64_t broken_lines) {
  std::vector<ordered_json> events;
  int64_t left_out = scalars.events_left_out();
  std::set<int64_t> told;  // a skipped step with a note of its own needs no second line
  each_line(dir / "events.jsonl", [&](const ordered_json& event, int64_t) {
    const ordered_json known = known_fields(event);
    if (known.value("event", "") == "skipped" && known.contains("step"))
      told.insert(known["step"].get<int64_t>());
    if (events.size() < kEvents)
      events.push_back(known);
    else
      ++left_out;
  });
  for (const ordered_json& event : scalars.events())
    if (!told.contains(event["step"].get<int64_t>())) events.push_back(event);
  std::stable_sort(events.begin(), events.end(), [](const ordered_json& a, const ordered_json& b) {
    return a.value("step", int64_t{0}) < b.value("step", int64_t{0});
  });
  if (left_out > 0)
    events.push_back({{"event", "more"}, {"text", fmt::format("{} further events", left_out)}});
  if (broken_lines > 0)
    events.push_back({{"event", "unreadable"},
                      {"text", fmt::format("{} lines of metrics.jsonl", broken_lines)}});
  return events;
}

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  ::gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M UTC", &parts);
  return text;
}

void check_is_run(const fs::path& dir) {
  std::error_code error;
  COHORT_CHECK_INPUT(fs::is_directory(dir, error),
                     "{}: no such folder; give the run.dir of a training",
                     dir.string());
  COHORT_CHECK_INPUT(
      fs::exists(dir / "metrics.jsonl", error) || fs::exists(dir / "config.yaml", error),
      "{}: not a run: it holds neither metrics.jsonl nor config.yaml; give the run.dir of a "
      "training",
      dir.string());
}

}  // namespace

ordered_json report_data(const fs::path& dir) {
  check_is_run(dir);
  Scalars scalars;
  const int64_t broken = each_line(dir / "metrics.jsonl",
                                   [&](const ordered_json& line, int64_t) { scalars.add(line); });
  LoadHistory loads(kLoadCells);
  each_line(dir / "experts.jsonl", [&](const ordered_json& line, int64_t) {
    if (const auto step = step_of(line)) loads.add(*step, line);
  });
  ordered_json card = read_json(dir / "data_card.json"), summary = read_json(dir / "summary.json");

  ordered_json figures = scalars.figures();
  for (const char* key : {"val_bits_per_byte", "gzip_bits_per_byte", "wall_seconds"})
    for (const ordered_json* source : {&summary, &card})
      if (const auto v = find_number(*source, key); v && !figures.contains(key)) figures[key] = *v;
  each_line(dir / "events.jsonl", [&](const ordered_json& event, int64_t) {
    if (const auto total = finite(event, "total_steps")) figures["total_steps"] = *total;
  });
  cut_long_lists(card);
  cut_long_lists(summary);

  const fs::path whole = fs::absolute(dir).lexically_normal();
  return {{"name", (whole.has_filename() ? whole : whole.parent_path()).filename().string()},
          {"dir", dir.string()},
          {"written", utc_now()},
          {"figures", figures},
          {"curves", scalars.curves()},
          {"loads", loads.json()},
          {"samples", report_samples(dir / "samples.jsonl")},
          {"events", gather_events(dir, scalars, broken)},
          {"config", read_text(dir / "config.yaml")},
          {"data_card", card},
          {"summary", summary},
          {"checkpoints", list_checkpoints(dir / "checkpoints")}};
}

}  // namespace cohort::core
