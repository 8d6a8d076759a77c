// The table of keys as a YAML file and as help text.
#include "core/config/parse.h"
#include "core/config/values.h"

namespace cohort::core {
namespace {

std::vector<std::string> parts_of(const std::string& key) {
  std::vector<std::string> parts;
  for (size_t begin = 0; begin <= key.size();) {
    const size_t end = std::min(key.find('.', begin), key.size());
    parts.push_back(key.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

}  // namespace

std::string to_yaml(const Config& config) {
  std::string yaml;
  std::vector<std::string> open;  // the sections that the last line stood in
  for (const Field& field : fields()) {
    std::vector<std::string> parts = parts_of(field.key);
    const std::string name = parts.back();
    parts.pop_back();
    size_t depth = 0;
    while (depth < open.size() && depth < parts.size() && open[depth] == parts[depth]) ++depth;
    for (; depth < parts.size(); ++depth)
      yaml += std::string(2 * depth, ' ') + parts[depth] + ":\n";
    open = parts;
    yaml += std::string(2 * depth, ' ') + name + ": " + value_text(field, config) + "\n";
  }
  return yaml;
}

std::string config_reference() {
  const Config defaults;
  std::string text;
  const auto line = [&text](const std::string& left, const std::string& right) {
    text += fmt::format("  {:<48} {}\n", left, right);
  };
  for (const Field& field : fields()) {
    if (field.key == "model.model_type") line(kFromKey, fmt::format("{} [path]", kFromMeaning));
    line(field.key + " = " + value_text(field, defaults),
         fmt::format("{} [{}]", field.meaning, describe(field)));
  }
  return text;
}

}  // namespace cohort::core
