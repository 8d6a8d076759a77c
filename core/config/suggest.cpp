#include "core/config/suggest.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "core/config/fields.h"

namespace cohort::core {
namespace {

/// Insertions, deletions and substitutions that make one text of the other.
size_t edit_distance(const std::string& from, const std::string& to) {
  std::vector<size_t> row(to.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= from.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= to.size(); ++j) {
      const size_t substituted = diagonal + (from[i - 1] != to[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
    }
  }
  return row[to.size()];
}

std::string last_part(const std::string& key) { return key.substr(key.rfind('.') + 1); }
std::string section_of(const std::string& key) {
  const size_t dot = key.rfind('.');
  return dot == key.npos ? "" : key.substr(0, dot);
}

/// The keys and sections right below `section`, in the table's order.
std::vector<std::string> children(const std::string& section) {
  std::vector<std::string> names;
  const std::string prefix = section.empty() ? "" : section + ".";
  for (const Field& field : fields()) {
    if (!field.key.starts_with(prefix)) continue;
    const std::string below = field.key.substr(prefix.size());
    const std::string name = below.substr(0, below.find('.'));
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  }
  if (section == "model") names.push_back(last_part(kFromKey));
  return names;
}

std::string nearest(const std::string& name, const std::vector<std::string>& candidates) {
  std::string best;
  size_t best_distance = std::max<size_t>(2, name.size() / 3) + 1;
  for (const std::string& candidate : candidates) {
    // Three wrong letters of four are no typing error.
    const size_t distance = edit_distance(name, candidate);
    if (distance >= best_distance || distance * 2 > std::max(name.size(), candidate.size()))
      continue;
    best = candidate;
    best_distance = distance;
  }
  return best;
}

}  // namespace

std::string suggest_key(const std::string& key) {
  if (key.size() > 200) return "no key is that long";
  const std::string section = section_of(key), name = last_part(key);
  const std::string prefix = section.empty() ? "" : section + ".";
  const std::vector<std::string> siblings = children(section);
  if (const std::string near = nearest(name, siblings); !near.empty())
    return fmt::format("did you mean {}{}?", prefix, near);
  for (const Field& field : fields())
    if (last_part(field.key) == name) return fmt::format("did you mean {}?", field.key);
  std::vector<std::string> all;
  for (const Field& field : fields()) all.push_back(field.key);
  if (const std::string near = nearest(key, all); !near.empty())
    return fmt::format("did you mean {}?", near);
  if (siblings.empty()) return "cohort pretrain --help lists every key";
  constexpr size_t kMostListed = 12;
  if (siblings.size() > kMostListed) return "cohort pretrain --help lists every key";
  return fmt::format("known here: {}", fmt::join(siblings, ", "));
}

}  // namespace cohort::core
