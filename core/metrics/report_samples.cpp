#include "core/metrics/report_samples.h"

#include <algorithm>
#include <fstream>
#include <map>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "core/metrics/curve.h"
#include "core/metrics/report_lines.h"

namespace cohort::core {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

// Together these keep the section under 2 MB for texts of the usual kind.
constexpr size_t kSamples = 200;
constexpr size_t kSteps = 40;
constexpr size_t kGlanceShare = 3;  // a step seen at first glance gets so many times the others'
constexpr size_t kTextBytes = 4096;
constexpr size_t kTailBytes = 1024;  // of a text that is cut: answers stand at the end
constexpr size_t kComponents = 16;
constexpr size_t kNameBytes = 100;

/// One sample, as the first pass keeps it.
struct Entry {
  int64_t offset;  // of its line in the file
  size_t problem;  // numbered in the order of the file
  bool held_out;
};
using Steps = std::map<int64_t, std::vector<Entry>>;

std::string text_of(const ordered_json& line, const char* key) {
  const auto found = line.find(key);
  return found != line.end() && found->is_string() ? found->get<std::string>() : std::string();
}

std::string problem_key(const ordered_json& line) {
  return text_of(line, "problem_id") + '\0' + text_of(line, "prompt");
}

bool is_sample(const ordered_json& line) {
  const auto found = line.find("completion");
  return step_of(line) && found != line.end() && found->is_string();
}

/// The texts of a page are cut in the middle, between two characters.
ordered_json cut_text(const std::string& text) {
  if (text.size() <= kTextBytes) return text;
  const auto continues = [&](size_t i) { return (static_cast<uint8_t>(text[i]) & 0xC0) == 0x80; };
  size_t head = kTextBytes - kTailBytes, tail = text.size() - kTailBytes;
  while (head > 0 && continues(head)) --head;
  while (tail < text.size() && continues(tail)) ++tail;
  return {text.substr(0, head), text.substr(tail), tail - head};
}

/// An answer may be a number, or a list of a few; what is nested deeper is not shown.
ordered_json answer_of(const ordered_json& line) {
  const auto found = line.find("answer");
  if (found == line.end() || found->is_null()) return nullptr;
  if (found->is_string()) return cut_text(found->get<std::string>());
  if (found->is_structured())
    for (const auto& child : *found)
      if (child.is_structured()) return nullptr;
  return cut_text(found->dump());
}

ordered_json number_of(const ordered_json& line, const char* key) {
  const auto value = finite(line, key);
  return value ? ordered_json(six_digits(*value)) : ordered_json();
}

ordered_json components_of(const ordered_json& line) {
  ordered_json components = ordered_json::object();
  const auto found = line.find("rewards");
  if (found == line.end() || !found->is_object()) return components;
  for (const auto& [name, value] : found->items()) {
    if (components.size() == kComponents) break;
    if (name.size() <= kNameBytes) components[name] = number_of(*found, name.c_str());
  }
  return components;
}

bool is_right(const ordered_json& components, const ordered_json& reward) {
  const ordered_json& value = components.empty() ? reward : components.front();
  return value.is_number() && value.get<double>() >= 1;
}

/// At most `most` of `steps`, evenly spread, both ends among them.
std::vector<int64_t> spread(const std::vector<int64_t>& steps, size_t most) {
  if (steps.size() <= most) return steps;
  std::vector<int64_t> chosen;
  for (size_t i = 0; i < most; ++i) {
    const double at = static_cast<double>(i * (steps.size() - 1)) / static_cast<double>(most - 1);
    chosen.push_back(steps[static_cast<size_t>(std::lround(at))]);
  }
  return chosen;
}

/// First, last, and of those between that have many problems of the first the one nearest to the
/// middle.
std::vector<int64_t> glance_of(const std::vector<int64_t>& chosen, const Steps& steps) {
  if (chosen.size() < 3) return chosen;
  const auto problems_of = [&](int64_t step) {
    std::unordered_set<size_t> problems;
    for (const Entry& entry : steps.at(step)) problems.insert(entry.problem);
    return problems;
  };
  const auto wanted = problems_of(chosen.front());
  std::vector<size_t> shared;
  for (const int64_t step : chosen) {
    const auto here = problems_of(step);
    shared.push_back(static_cast<size_t>(std::count_if(
        here.begin(), here.end(), [&](size_t problem) { return wanted.contains(problem); })));
  }
  const size_t most = *std::max_element(shared.begin() + 1, shared.end() - 1);
  const auto away = [&](size_t i) {
    return std::abs(2 * static_cast<int64_t>(i) - static_cast<int64_t>(chosen.size() - 1));
  };
  size_t middle = 0;
  for (size_t i = 1; i + 1 < chosen.size(); ++i)
    if (2 * shared[i] >= most && (middle == 0 || away(i) < away(middle))) middle = i;
  return {chosen.front(), chosen[middle], chosen.back()};
}

/// In how many of the chosen steps each problem is.
std::unordered_map<size_t, size_t> prevalence(const std::vector<int64_t>& chosen,
                                              const Steps& steps) {
  std::unordered_map<size_t, size_t> counts;
  for (const int64_t step : chosen) {
    std::unordered_set<size_t> here;
    for (const Entry& entry : steps.at(step))
      if (here.insert(entry.problem).second) ++counts[entry.problem];
  }
  return counts;
}

/// `room` of the entries of one step: one of each problem before a second of any, widespread
/// problems first, and where there are both kinds, training and held-out ones in turn.
std::vector<Entry> choose(const std::vector<Entry>& entries,
                          std::unordered_map<size_t, size_t>& spread_of,
                          size_t room) {
  struct Ranked {
    size_t round, steps;
    Entry entry;
  };
  std::vector<Ranked> kinds[2];
  std::unordered_map<size_t, size_t> rounds;
  for (const Entry& entry : entries)
    kinds[entry.held_out ? 0 : 1].push_back(
        {rounds[entry.problem]++, spread_of[entry.problem], entry});
  std::vector<Entry> chosen;
  for (auto& kind : kinds)
    std::sort(kind.begin(), kind.end(), [](const Ranked& a, const Ranked& b) {
      if (a.round != b.round) return a.round < b.round;
      if (a.steps != b.steps) return a.steps > b.steps;
      return a.entry.offset < b.entry.offset;
    });
  for (size_t i = 0; i < entries.size() && chosen.size() < room; ++i)
    for (const auto& kind : kinds)
      if (i < kind.size() && chosen.size() < room) chosen.push_back(kind[i].entry);
  return chosen;
}

/// Writes the chosen lines into the page's data.
class Shown {
 public:
  void add(const ordered_json& line) {
    ordered_json components = components_of(line), reward = number_of(line, "reward");
    if (right_by_.is_null() && !components.empty()) right_by_ = components.begin().key();
    ordered_json sample{{"step", *step_of(line)},
                        {"problem", problem_of(line)},
                        {"completion", cut_text(text_of(line, "completion"))},
                        {"reward", reward}};
    sample["right"] = is_right(components, reward);
    sample["rewards"] = std::move(components);
    sample["advantage"] = number_of(line, "advantage");
    sample["tokens"] = number_of(line, "tokens");
    const auto truncated = line.find("truncated");
    sample["truncated"] =
        truncated != line.end() && truncated->is_boolean() && truncated->get<bool>();
    sample["held_out"] = text_of(line, "split") == "eval";
    samples_.push_back(std::move(sample));
  }

  void write_to(ordered_json& result) {
    result["right_by"] = right_by_;
    result["problems"] = std::move(problems_);
    result["shown"] = std::move(samples_);
  }

 private:
  size_t problem_of(const ordered_json& line) {
    const auto [at, is_new] = indices_.try_emplace(problem_key(line), problems_.size());
    if (is_new)
      problems_.push_back({{"id", text_of(line, "problem_id").substr(0, kNameBytes)},
                           {"prompt", cut_text(text_of(line, "prompt"))},
                           {"answer", answer_of(line)}});
    return at->second;
  }

  ordered_json right_by_;
  ordered_json problems_ = ordered_json::array(), samples_ = ordered_json::array();
  std::unordered_map<std::string, size_t> indices_;
};

}  // namespace

ordered_json report_samples(const fs::path& path) {
  std::error_code error;
  if (!fs::is_regular_file(path, error)) return nullptr;
  Steps steps;
  std::unordered_map<size_t, size_t> numbers;  // hash of a problem -> its number
  int64_t lines = 0, unreadable = 0;
  unreadable += each_line(path, [&](const ordered_json& line, int64_t offset) {
    if (!is_sample(line)) return void(++unreadable);
    const size_t hash = std::hash<std::string>{}(problem_key(line));
    const size_t problem = numbers.try_emplace(hash, numbers.size()).first->second;
    steps[*step_of(line)].push_back({offset, problem, text_of(line, "split") == "eval"});
    ++lines;
  });
  if (lines == 0) return nullptr;

  std::vector<int64_t> all;
  for (const auto& [step, entries] : steps) all.push_back(step);
  const std::vector<int64_t> chosen = spread(all, kSteps), glance = glance_of(chosen, steps);
  auto spread_of = prevalence(chosen, steps);
  const size_t share = kSamples / (chosen.size() + (kGlanceShare - 1) * glance.size());
  Shown shown;
  std::ifstream in(path, std::ios::binary);
  for (const int64_t step : chosen) {
    const bool first_seen = std::find(glance.begin(), glance.end(), step) != glance.end();
    for (const Entry& entry :
         choose(steps[step], spread_of, share * (first_seen ? kGlanceShare : 1))) {
      // A run that is resumed meanwhile may have cut the file.
      std::string text;
      in.clear();
      in.seekg(entry.offset);
      if (!std::getline(in, text)) continue;
      const ordered_json line = ordered_json::parse(text, nullptr, false);
      if (line.is_object() && is_sample(line) && *step_of(line) == step) shown.add(line);
    }
  }
  ordered_json result{{"lines", lines},
                      {"steps", all.size()},
                      {"unreadable", unreadable},
                      {"cut_bytes", kTextBytes},
                      {"glance", glance}};
  shown.write_to(result);
  return result;
}

}  // namespace cohort::core
