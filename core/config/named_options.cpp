#include "core/config/named_options.h"

#include <charconv>
#include <cmath>
#include <set>

#include "core/base/error.h"

namespace cohort::core {
namespace {

using nlohmann::json;

// Aliases let a short file stand for a huge or an endless tree.
constexpr int kDeepest = 16;
constexpr int64_t kMostNodes = 100000;

template <typename Number>
std::errc read_whole(const std::string& text, Number& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return end == text.data() + text.size() ? error : std::errc::invalid_argument;
}

/// YAML to JSON, with the place of what is wrong.
class Reader {
 public:
  explicit Reader(const Source& source) : source_(source) {}

  json read(const YAML::Node& node, const std::string& key, int depth = 0) {
    if (depth > kDeepest || ++nodes_ > kMostNodes)
      source_.refuse(node, key, "is nested or repeated without end", "want a few plain options");
    if (node.IsMap()) return read_map(node, key, depth);
    if (node.IsSequence()) {
      json list = json::array();
      for (size_t i = 0; i < node.size(); ++i)
        list.push_back(read(node[i], fmt::format("{}.{}", key, i), depth + 1));
      return list;
    }
    return node.IsScalar() ? read_scalar(node, key) : json(nullptr);
  }

  /// Calls visit(name, key, value) for each pair of a map; refuses names that are none.
  template <typename Visit>
  void each(const YAML::Node& map, const std::string& key, Visit visit) {
    std::set<std::string> seen;
    for (const auto& pair : map) {
      if (!pair.first.IsScalar() || pair.first.Scalar().empty())
        source_.refuse(pair.first, key, shown(pair.first) + " is no option", "want a name");
      const std::string name = pair.first.Scalar(), child = key + "." + name;
      if (!seen.insert(name).second)
        source_.refuse(pair.first, child, "stands here twice", "remove one");
      visit(name, child, pair.second);
    }
  }

 private:
  json read_map(const YAML::Node& node, const std::string& key, int depth) {
    json map = json::object();
    each(node, key, [&](const std::string& name, const std::string& child, const YAML::Node& of) {
      map[name] = read(of, child, depth + 1);
    });
    return map;
  }

  json read_scalar(const YAML::Node& node, const std::string& key) {
    const std::string& text = node.Scalar();
    if (text.find('\0') != text.npos)
      source_.refuse(node, key, "the text holds a zero byte", "want text without one");
    if (node.Tag() == "!" || node.Tag() == "tag:yaml.org,2002:str") return text;
    if (text == "true" || text == "True" || text == "TRUE") return true;
    if (text == "false" || text == "False" || text == "FALSE") return false;
    if (text.find_first_of("0123456789") == text.npos) {
      if (text == ".inf" || text == "-.inf" || text == ".nan" || text == ".Inf" || text == ".NaN")
        source_.refuse(node, key, shown(node) + " is not a finite number", "want a finite one");
      return text;
    }
    return read_number(node, key);
  }

  /// Text with digits that is not wholly a number stays text ("3x", "1.2.3").
  json read_number(const YAML::Node& node, const std::string& key) {
    const std::string& written = node.Scalar();
    const std::string text =
        written.size() > 1 && written[0] == '+' && written[1] != '-' ? written.substr(1) : written;
    int64_t whole = 0;
    uint64_t large = 0;
    double real = 0;
    if (read_whole(text, whole) == std::errc{}) return whole;
    if (read_whole(text, large) == std::errc{}) return large;
    const bool too_large = read_whole(text, whole) == std::errc::result_out_of_range;
    const std::errc error = read_whole(text, real);
    if (too_large || error == std::errc::result_out_of_range)
      source_.refuse(node, key, shown(node) + " is too large a number", "want a smaller one");
    const bool number = error == std::errc{} && std::isfinite(real);  // "nan(1)" is text
    return number ? json(real) : json(written);
  }

  const Source& source_;
  int64_t nodes_ = 0;
};

const char* kind(Component component) { return component == Component::kTask ? "task" : "reward"; }

const char* example(Component component) {
  return component == Component::kTask
             ? "want a name, or a map such as {name: countdown, count: 3}"
             : "want a name, or a map such as {name: format, weight: 0.2}";
}

}  // namespace

void set_named_member(Component component,
                      NamedOptions& target,
                      const std::string& member,
                      const YAML::Node& node,
                      const Source& source,
                      const std::string& key) {
  if (member == "name") {
    if (!node.IsScalar() || node.Scalar().empty())
      source.refuse(node,
                    key,
                    shown(node) + " is no name",
                    fmt::format("want that of a {}", kind(component)));
    target.name = node.Scalar();
    return;
  }
  if (member == "weight") {
    if (component == Component::kTask)
      source.refuse(node, key, "unknown key", "rewards have weights, a task has none");
    const json weight = Reader(source).read(node, key);
    if (!weight.is_number())
      source.refuse(node, key, shown(node) + " is not a weight", "want a number");
    target.weight = weight.get<double>();
    return;
  }
  if (member.empty() || member.find('.') != member.npos)
    source.refuse(node,
                  key,
                  quoted(member) + " is no option",
                  fmt::format("overrides reach the options of a {}, not what is inside of them",
                              kind(component)));
  target.options[member] = Reader(source).read(node, key);
}

NamedOptions read_named_options(Component component,
                                const YAML::Node& node,
                                const Source& source,
                                const std::string& key) {
  NamedOptions result;
  if (node.IsScalar() && !node.Scalar().empty()) {
    result.name = node.Scalar();
    return result;
  }
  if (!node.IsMap())
    source.refuse(
        node, key, shown(node) + fmt::format(" is no {}", kind(component)), example(component));
  Reader(source).each(node, key, [&](const auto& name, const auto& child, const YAML::Node& value) {
    if (name.find('.') != name.npos) {  // an option, whatever it is called
      result.options[name] = Reader(source).read(value, child);
      return;
    }
    set_named_member(component, result, name, value, source, child);
  });
  if (result.name.empty()) source.refuse(node, key + ".name", "is missing", example(component));
  return result;
}

std::vector<NamedOptions> read_named_list(const YAML::Node& node,
                                          const Source& source,
                                          const std::string& key) {
  if (!node.IsSequence()) return {read_named_options(Component::kReward, node, source, key)};
  std::vector<NamedOptions> list;
  for (size_t i = 0; i < node.size(); ++i)
    list.push_back(
        read_named_options(Component::kReward, node[i], source, fmt::format("{}.{}", key, i)));
  return list;
}

namespace {

/// JSON as YAML on one line. Texts are always in quotes: "5" must not come back as a number.
std::string flow_text(const json& value) {
  std::string text;
  if (value.is_object()) {
    for (const auto& [name, element] : value.items())
      text +=
          fmt::format("{}{}: {}", text.empty() ? "" : ", ", string_text(name), flow_text(element));
    return "{" + text + "}";
  }
  if (value.is_array()) {
    for (const json& element : value) text += (text.empty() ? "" : ", ") + flow_text(element);
    return "[" + text + "]";
  }
  if (value.is_number_float()) return number_text(value.get<double>());
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

}  // namespace

std::string named_text(const NamedOptions& value) {
  if (value.weight == 1.0 && value.options.empty()) return string_text(value.name);
  std::string text = "{name: " + string_text(value.name);
  if (value.weight != 1.0) text += ", weight: " + number_text(value.weight);
  for (const auto& [name, option] : value.options.items())
    text += fmt::format(", {}: {}", string_text(name), flow_text(option));
  return text + "}";
}

}  // namespace cohort::core
