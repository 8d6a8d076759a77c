#include "core/config/values.h"

#include <charconv>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/config/named_options.h"

namespace cohort::core {
namespace {

/// One value on its way into a member.
struct Assignment {
  const Field& field;
  const YAML::Node& node;
  const Source& source;
  const std::string& key;

  [[noreturn]] void refuse(const std::string& wrong) const {
    source.refuse(node, key, wrong, "want " + describe(field));
  }
  [[noreturn]] void refuse_type() const { refuse(shown(node) + " is not what this key takes"); }
};

/// A plain (unquoted) scalar's text; anything else is of the wrong type for a number or a bool.
std::string plain_text(const Assignment& a) {
  if (!a.node.IsScalar() || a.node.Tag() == "!") a.refuse_type();
  const std::string& text = a.node.Scalar();
  return text.size() > 1 && text[0] == '+' && text[1] != '-' ? text.substr(1) : text;
}

void check_range(const Assignment& a, double value) {
  const Allowed& allowed = a.field.allowed;
  const bool inside = (allowed.low_open ? value > allowed.low : value >= allowed.low) &&
                      (allowed.high_open ? value < allowed.high : value <= allowed.high);
  if (inside) return;
  const std::string end = fmt::format("{}", allowed.high);
  a.refuse(shown(a.node) + " is out of range" +
           (value > allowed.high ? " (above " + end + ")" : ""));
}

template <typename Integer>
void set(Integer* member, const Assignment& a) {
  const std::string text = plain_text(a);
  Integer value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = end == text.data() + text.size();
  if (whole && error == std::errc::result_out_of_range) a.refuse(shown(a.node) + " is too large");
  if (!whole || error != std::errc{}) {
    const bool negative = text.size() > 1 && text.find_first_not_of("0123456789", 1) == text.npos;
    a.refuse(shown(a.node) +
             (text[0] == '-' && negative ? " is out of range" : " is not a whole number"));
  }
  check_range(a, static_cast<double>(value));
  *member = value;
}

double finite_number(const Assignment& a) {
  const std::string text = plain_text(a);
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool yaml_special = text.find("inf") != text.npos || text.find("nan") != text.npos ||
                            text == ".Inf" || text == ".NaN" || text == "-.Inf";
  if (yaml_special) a.refuse(shown(a.node) + " is not a finite number");
  if (end != text.data() + text.size()) a.refuse(shown(a.node) + " is not a number");
  if (error == std::errc::result_out_of_range) a.refuse(shown(a.node) + " does not fit a double");
  if (error != std::errc{} || !std::isfinite(value))
    a.refuse(shown(a.node) + " is not a finite number");
  check_range(a, value);
  return value;
}

void set(double* member, const Assignment& a) { *member = finite_number(a); }

void set(bool* member, const Assignment& a) {
  plain_text(a);
  if (!YAML::convert<bool>::decode(a.node, *member))
    a.refuse(shown(a.node) + " is neither true nor false");
}

void set(std::string* member, const Assignment& a) {
  if (!a.node.IsScalar()) a.refuse_type();
  const std::string& text = a.node.Scalar();
  const auto& choices = a.field.allowed.choices;
  if (!choices.empty() && std::find(choices.begin(), choices.end(), text) == choices.end())
    a.refuse(quoted(text) + " is not known");
  if (text.empty() && !a.field.allowed.word) a.refuse("the text is empty");
  if (text.find('\0') != text.npos) a.refuse("the text holds a zero byte");
  *member = text;
}

void set(std::array<double, 2>* member, const Assignment& a) {
  if (!a.node.IsSequence() || a.node.size() != 2) a.refuse_type();
  for (size_t i = 0; i < 2; ++i) {
    const YAML::Node element = a.node[i];
    (*member)[i] = finite_number({a.field, element, a.source, a.key});
  }
}

/// One member of one token set.
void set_source_member(DataSource& source, const std::string& name, const Assignment& a) {
  if (name == "path") {
    if (!a.node.IsScalar() || a.node.Scalar().empty())
      a.source.refuse(
          a.node, a.key, shown(a.node) + " is not a path", "want the prefix of a token set");
    source.path = a.node.Scalar();
    return;
  }
  if (name != "weight")
    a.source.refuse(a.node, a.key, "unknown key", "a token set has path and weight");
  double weight = 0;
  const auto& node = a.node;
  const std::string text = node.IsScalar() && node.Tag() != "!" ? node.Scalar() : "";
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), weight);
  if (text.empty() || end != text.data() + text.size() || error != std::errc{} ||
      !std::isfinite(weight) || weight <= 0)
    a.source.refuse(node, a.key, shown(node) + " is not a weight", "want a number > 0");
  source.weight = weight;
}

/// A token set is a map of path and weight, or the path alone.
DataSource read_data_source(const Assignment& a) {
  DataSource result;
  if (!a.node.IsMap()) {
    set_source_member(result, "path", a);
    return result;
  }
  std::vector<std::string> seen;
  for (const auto& pair : a.node) {
    const std::string name = pair.first.IsScalar() ? pair.first.Scalar() : "";
    const std::string key = a.key + "." + name;
    if (std::find(seen.begin(), seen.end(), name) != seen.end())
      a.source.refuse(pair.first, key, "stands here twice", "remove one");
    seen.push_back(name);
    set_source_member(result, name, {a.field, pair.second, a.source, key});
  }
  if (result.path.empty())
    a.source.refuse(a.node, a.key + ".path", "is missing", "want the prefix of a token set");
  return result;
}

void set(std::vector<DataSource>* member, const Assignment& a) {
  if (a.node.IsNull()) a.refuse_type();
  std::vector<DataSource> sources;
  if (!a.node.IsSequence()) {
    sources.push_back(read_data_source(a));
  } else {
    for (size_t i = 0; i < a.node.size(); ++i) {
      const YAML::Node element = a.node[i];
      sources.push_back(
          read_data_source({a.field, element, a.source, fmt::format("{}.{}", a.key, i)}));
    }
  }
  *member = std::move(sources);
}

void set(NamedOptions* member, const Assignment& a) {
  *member = read_named_options(Component::kTask, a.node, a.source, a.key);
}

void set(std::vector<NamedOptions>* member, const Assignment& a) {
  if (a.node.IsNull()) a.refuse_type();
  *member = read_named_list(a.node, a.source, a.key);
}

void set(std::vector<std::string>* member, const Assignment& a) {
  std::vector<std::string> texts;
  const auto add = [&](const YAML::Node& node) {
    if (!node.IsScalar() || node.Scalar().empty() || node.Scalar().find('\0') != std::string::npos)
      a.source.refuse(
          node, a.key, shown(node) + " is not what this key takes", "want " + describe(a.field));
    texts.push_back(node.Scalar());
  };
  if (a.node.IsSequence())
    for (size_t i = 0; i < a.node.size(); ++i) add(a.node[i]);
  else
    add(a.node);
  *member = std::move(texts);
}

/// The element of a list that an override names, LIST.INDEX or LIST.INDEX.MEMBER; the index after
/// the last one appends.
template <typename Element>
Element& element_at(std::vector<Element>& list,
                    const std::string& index_text,
                    const Assignment& a) {
  size_t index = 0;
  const auto [end, error] =
      std::from_chars(index_text.data(), index_text.data() + index_text.size(), index);
  if (error != std::errc{} || end != index_text.data() + index_text.size() || index > list.size())
    a.source.refuse(a.node,
                    a.key,
                    quoted(index_text) + " is no index of this list",
                    fmt::format("want 0 to {} (which appends)", list.size()));
  if (index == list.size()) list.emplace_back();
  return list[index];
}

/// What an override names below a field.
void set_below(std::vector<DataSource>* sources, const std::string& rest, const Assignment& a) {
  const std::string index = rest.substr(0, rest.find('.'));
  DataSource& source = element_at(*sources, index, a);
  if (rest.size() == index.size())
    source = read_data_source(a);
  else
    set_source_member(source, rest.substr(index.size() + 1), a);
}

void set_below(std::vector<NamedOptions>* rewards, const std::string& rest, const Assignment& a) {
  const std::string index = rest.substr(0, rest.find('.'));
  NamedOptions& reward = element_at(*rewards, index, a);
  if (rest.size() == index.size())
    reward = read_named_options(Component::kReward, a.node, a.source, a.key);
  else
    set_named_member(
        Component::kReward, reward, rest.substr(index.size() + 1), a.node, a.source, a.key);
}

void set_below(NamedOptions* task, const std::string& rest, const Assignment& a) {
  set_named_member(Component::kTask, *task, rest, a.node, a.source, a.key);
}

/// Nothing stands below the other types: parse.cpp knows which fields take such overrides.
template <typename Member>
void set_below(Member*, const std::string& rest, const Assignment& a) {
  COHORT_CHECK(false, "{} has no {}", a.field.key, rest);
}

std::string text_of(bool value) { return value ? "true" : "false"; }
std::string text_of(double value) { return number_text(value); }
std::string text_of(const std::string& value) { return string_text(value); }
std::string text_of(const std::array<double, 2>& value) {
  return fmt::format("[{}, {}]", number_text(value[0]), number_text(value[1]));
}
std::string text_of(const std::vector<DataSource>& value) {
  std::string text;
  for (const DataSource& source : value)
    text += fmt::format("{}{{path: {}, weight: {}}}",
                        text.empty() ? "" : ", ",
                        string_text(source.path),
                        number_text(source.weight));
  return "[" + text + "]";
}
std::string text_of(const NamedOptions& value) { return named_text(value); }
std::string text_of(const std::vector<NamedOptions>& value) {
  std::string text;
  for (const NamedOptions& element : value)
    text += (text.empty() ? "" : ", ") + named_text(element);
  return "[" + text + "]";
}
std::string text_of(const std::vector<std::string>& value) {
  std::string text;
  for (const std::string& element : value)
    text += (text.empty() ? "" : ", ") + string_text(element);
  return "[" + text + "]";
}
template <typename Integer>
std::string text_of(Integer value) {
  return fmt::format("{}", value);
}

/// Whether the member holds the value for which the field's word stands.
bool holds_word(const FieldRef& ref, const Allowed& allowed) {
  if (!allowed.word) return false;
  if (auto text = std::get_if<std::string*>(&ref)) return (*text)->empty();
  if (auto named = std::get_if<NamedOptions*>(&ref)) return **named == NamedOptions{};
  if (auto whole = std::get_if<int64_t*>(&ref)) return **whole == allowed.word->value;
  if (auto small = std::get_if<int*>(&ref)) return **small == allowed.word->value;
  if (auto real = std::get_if<double*>(&ref)) return **real == allowed.word->value;
  return false;
}

void set_word(const FieldRef& ref, double value) {
  if (auto text = std::get_if<std::string*>(&ref)) (*text)->clear();
  if (auto named = std::get_if<NamedOptions*>(&ref)) **named = {};
  if (auto whole = std::get_if<int64_t*>(&ref)) **whole = static_cast<int64_t>(value);
  if (auto small = std::get_if<int*>(&ref)) **small = static_cast<int>(value);
  if (auto real = std::get_if<double*>(&ref)) **real = value;
}

}  // namespace

std::string number_text(double value) {
  std::string text = fmt::format("{}", value);  // the shortest text that reads back the same
  return text.find_first_not_of("-0123456789") == text.npos ? text + ".0" : text;
}

std::string string_text(const std::string& text) {
  const bool plain =
      !text.empty() && text != "null" && text != "Null" && text != "NULL" && text[0] != '-' &&
      text.find_first_not_of(
          "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./") == text.npos;
  using nlohmann::json;
  return plain ? text : json(text).dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string Source::at(const YAML::Node& node) const {
  // An absent value's mark is that of whatever comes next.
  const int line = node.IsNull() && key_line >= 0 ? key_line : node.Mark().line;
  return has_lines && line >= 0 ? fmt::format("{}:{}", name, line + 1) : name;
}

void Source::refuse(const YAML::Node& node,
                    const std::string& key,
                    const std::string& wrong,
                    const std::string& right) const {
  throw InputError(fmt::format("{}: {}: {}; {}", at(node), key, wrong, right));
}

std::string quoted(const std::string& text) {
  constexpr size_t kLongest = 60;
  size_t length = std::min(text.size(), kLongest);
  while (length < text.size() && length > 0 && (text[length] & 0xc0) == 0x80)
    --length;  // not in the middle of a UTF-8 character
  std::string clean;
  for (const char c : text.substr(0, length)) {
    const auto byte = static_cast<unsigned char>(c);
    clean += byte < 0x20 || byte == 0x7f ? fmt::format("\\x{:02x}", byte) : std::string(1, c);
  }
  return "'" + clean + (text.size() > length ? "..." : "") + "'";
}

std::string shown(const YAML::Node& node) {
  if (node.IsMap()) return "a map";
  if (node.IsSequence()) return "a list";
  return node.IsScalar() ? quoted(node.Scalar()) : "null";
}

void assign(const Field& field,
            const std::string& rest,
            const YAML::Node& node,
            const Source& source,
            const std::string& key,
            Config& config) {
  const Assignment assignment{field, node, source, key};
  const FieldRef ref = field.at(config);
  if (!rest.empty())
    return std::visit([&](auto* member) { set_below(member, rest, assignment); }, ref);
  const auto& word = field.allowed.word;
  const bool is_word =
      word &&
      (word->word == "null" ? node.IsNull() : node.IsScalar() && node.Scalar() == word->word);
  if (is_word) return set_word(ref, word->value);
  std::visit([&](auto* member) { set(member, assignment); }, ref);
}

std::string value_text(const Field& field, const Config& config) {
  Config copy = config;
  const FieldRef ref = field.at(copy);
  if (holds_word(ref, field.allowed)) return field.allowed.word->word;
  return std::visit([](auto* member) { return text_of(*member); }, ref);
}

}  // namespace cohort::core
