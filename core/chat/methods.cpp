// The methods of str, list and dict that chat templates call, as Python has them.
#include <algorithm>
#include <string_view>

#include <fmt/format.h>

#include "core/chat/evaluator.h"
#include "core/chat/lexer.h"
#include "core/chat/text.h"

namespace cohort::core::chat {
namespace {

constexpr std::string_view kTextMethods[] = {
    "strip",        "lstrip",       "rstrip",    "split",      "rsplit",  "splitlines",
    "startswith",   "endswith",     "upper",     "lower",      "title",   "capitalize",
    "replace",      "find",         "rfind",     "index",      "count",   "join",
    "isdigit",      "isalpha",      "isalnum",   "isspace",    "isupper", "islower",
    "removeprefix", "removesuffix", "partition", "rpartition", "zfill"};
/// Python has them and templates may not use them here: named, so that they are not taken for keys.
constexpr std::string_view kOtherTextMethods[] = {"format",
                                                  "encode",
                                                  "center",
                                                  "ljust",
                                                  "rjust",
                                                  "casefold",
                                                  "swapcase",
                                                  "expandtabs",
                                                  "translate",
                                                  "format_map",
                                                  "isascii",
                                                  "isdecimal",
                                                  "isidentifier",
                                                  "isnumeric",
                                                  "isprintable",
                                                  "istitle",
                                                  "maketrans",
                                                  "rindex"};
constexpr std::string_view kDictMethods[] = {"items", "keys", "values", "get", "copy"};
constexpr std::string_view kOtherDictMethods[] = {
    "pop", "popitem", "update", "setdefault", "clear", "fromkeys"};
constexpr std::string_view kListMethods[] = {"index", "count", "copy"};
constexpr std::string_view kOtherListMethods[] = {
    "append", "extend", "insert", "pop", "remove", "reverse", "sort", "clear"};

template <size_t N>
bool holds(const std::string_view (&names)[N], std::string_view name) {
  return std::find(names, names + N, name) != names + N;
}

Value list_of(const std::vector<std::string_view>& parts,
              Work& work,
              ListKind kind = ListKind::kList) {
  work.spend(64 * parts.size());
  Values items;
  for (const std::string_view part : parts) items.emplace_back(part);
  return Value::list(std::move(items), kind);
}

Value stripped(const std::string& text, Sides sides, const Arguments& given) {
  given.check("strip()", 1, {});
  const Value* set = given.find(0, "chars");
  if (!set || set->is_none()) return strip(text, sides);
  return strip(text, text_of(*set, "strip()"), sides);
}

Value parts_of(const std::string& text, bool from_right, const Arguments& given, Work& work) {
  given.check("split()", 2, {"sep", "maxsplit"});
  const Value* separator = given.find(0, "sep");
  const Value* most_value = given.find(1, "maxsplit");
  const int64_t most = most_value ? integer_of(*most_value, "split()") : -1;
  if (!separator || separator->is_none()) {
    if (from_right && most >= 0) throw Fault("rsplit() by white space with a limit is not known");
    work.spend(text.size());
    return list_of(split_space(text, most), work);
  }
  const std::string& by = text_of(*separator, "split()");
  if (by.empty()) throw Fault("split() by an empty string");
  return list_of(from_right ? rsplit(text, by, most) : split(text, by, most), work);
}

bool any_affix(const std::string& text, const Value& affix, bool at_end, const char* what) {
  if (const List* list = affix.list(); list && list->kind == ListKind::kTuple)
    return std::any_of(list->items.begin(), list->items.end(), [&](const Value& one) {
      return any_affix(text, one, at_end, what);
    });
  const std::string& one = text_of(affix, what);
  return at_end ? text.ends_with(one) : text.starts_with(one);
}

Value partition(const std::string& text, const std::string& by, bool from_right, Work& work) {
  if (by.empty()) throw Fault("partition() by an empty string");
  const size_t at = from_right ? text.rfind(by) : find(text, by);
  const std::string_view all = text;
  if (at == text.npos)
    return list_of(from_right ? std::vector<std::string_view>{"", "", all}
                              : std::vector<std::string_view>{all, "", ""},
                   work,
                   ListKind::kTuple);
  return list_of({all.substr(0, at), all.substr(at, by.size()), all.substr(at + by.size())},
                 work,
                 ListKind::kTuple);
}

bool all_are(const std::string& text, const std::string& name) {
  bool cased = false;
  for (const std::string_view one : characters(text)) {
    const int32_t point = code_point(one);
    const bool digit = point >= '0' && point <= '9';
    const bool has_case = upper(one) != lower(one);
    if (name == "isupper" || name == "islower") {
      if (has_case && (name == "isupper" ? upper(one) : lower(one)) != one) return false;
      cased = cased || has_case;
      continue;
    }
    if (point >= 0x80) throw Fault(fmt::format("{}() beyond ASCII is not known", name));
    const bool fits = name == "isspace"   ? is_space(point)
                      : name == "isdigit" ? digit
                      : name == "isalpha" ? has_case
                                          : digit || has_case;
    if (!fits) return false;
  }
  return name == "isupper" || name == "islower" ? cased : !text.empty();
}

Value text_method(const std::string& text,
                  const std::string& name,
                  const Arguments& given,
                  Work& work) {
  work.spend(text.size() + 16);
  const auto argument = [&](size_t idx) -> const std::string& {
    if (idx >= given.positional.size())
      throw Fault(fmt::format("{}() wants {} strings", name, idx + 1));
    return text_of(given.positional[idx], name.c_str());
  };
  const auto none = [&] { given.check(name.c_str(), 0, {}); };
  if (name == "strip") return stripped(text, kBoth, given);
  if (name == "lstrip") return stripped(text, kLeft, given);
  if (name == "rstrip") return stripped(text, kRight, given);
  if (name == "split" || name == "rsplit") return parts_of(text, name == "rsplit", given, work);
  if (name == "splitlines") {
    given.check("splitlines()", 1, {"keepends"});
    const Value* keep = given.find(0, "keepends");
    return list_of(split_lines(text, keep && keep->truth()), work);
  }
  if (name == "replace") {
    given.check("replace()", 3, {"count"});
    const Value* count = given.find(2, "count");
    const int64_t most = count ? integer_of(*count, "replace()") : -1;
    const std::string &from = argument(0), &to = argument(1);
    const size_t places = from.empty() ? text.size() + 1 : split(text, from, most).size();
    work.spend(places * (16 + to.size()));
    return replace(text, from, to, most);
  }
  if (name == "join") {
    given.check("join()", 1, {});
    if (given.positional.empty()) throw Fault("join() wants a list");
    std::string out;
    bool first = true;
    for (const Value& item : walk(given.positional[0], work)) {
      if (!first) out += text;
      first = false;
      out += text_of(item, "join()");
      work.spend(text.size() + item.text()->size());
    }
    return out;
  }
  if (name.starts_with("is")) {
    none();
    return all_are(text, name);
  }
  if (name == "upper" || name == "lower" || name == "title" || name == "capitalize") {
    none();
    work.spend(16 * text.size());
    return name == "upper"   ? upper(text)
           : name == "lower" ? lower(text)
           : name == "title" ? title(text)
                             : capitalize(text);
  }
  given.check(name.c_str(), 1, {});
  if (name == "zfill") {
    const int64_t width = given.positional.empty() ? 0 : integer_of(given.positional[0], "zfill()");
    const int64_t missing = width - character_count(text);
    if (missing <= 0) return text;
    work.spend(static_cast<size_t>(missing));
    const bool sign = text.starts_with("-") || text.starts_with("+");
    return text.substr(0, sign) + std::string(static_cast<size_t>(missing), '0') +
           text.substr(sign);
  }
  if (name == "startswith" || name == "endswith") {
    if (given.positional.empty()) throw Fault(fmt::format("{}() wants a string", name));
    return any_affix(text, given.positional[0], name == "endswith", name.c_str());
  }
  const std::string& one = argument(0);
  if (name == "removeprefix") return text.starts_with(one) ? text.substr(one.size()) : text;
  if (name == "removesuffix")
    return text.ends_with(one) ? text.substr(0, text.size() - one.size()) : text;
  if (name == "partition" || name == "rpartition") {
    if (name == "rpartition") work.spend(text.size() / 16 * one.size());
    return partition(text, one, name == "rpartition", work);
  }
  if (name == "count") {
    if (one.empty()) return character_count(text) + 1;
    return static_cast<int64_t>(split(text, one, -1).size()) - 1;
  }
  if (name == "rfind") work.spend(text.size() / 16 * one.size());
  const size_t at = name == "rfind" ? text.rfind(one) : find(text, one);
  if (at == text.npos && name == "index") throw Fault("index(): the string is not there");
  return at == text.npos ? int64_t{-1} : character_count(std::string_view(text).substr(0, at));
}

Value dict_method(const Dict& dict, const std::string& name, const Arguments& given, Work& work) {
  work.spend(32 * dict.entries.size() + 16);
  if (name == "get") {
    given.check("get()", 2, {});
    if (given.positional.empty()) throw Fault("get() wants a key");
    const std::string* key = given.positional[0].text();
    const Value* found = key ? dict.find(*key) : nullptr;
    if (found) return *found;
    return given.positional.size() > 1 ? given.positional[1] : Value(None{});
  }
  given.check(name.c_str(), 0, {});
  if (name == "copy") return Value::dict(dict.entries);
  Values items;
  for (const auto& [key, value] : dict.entries) {
    if (name == "items")
      items.push_back(Value::list({Value(key), value}, ListKind::kTuple));
    else
      items.push_back(name == "keys" ? Value(key) : value);
  }
  return Value::list(std::move(items), ListKind::kView);
}

Value list_method(const Value& value, const std::string& name, const Arguments& given, Work& work) {
  const List& list = *value.list();
  if (name == "copy") return Value::list(list.items);
  given.check(name.c_str(), 1, {});
  if (given.positional.empty()) throw Fault(fmt::format("{}() wants a value", name));
  int64_t count = 0;
  for (size_t i = 0; i < list.items.size(); ++i)
    if (equal(list.items[i], given.positional[0], work)) {
      if (name == "index") return static_cast<int64_t>(i);
      ++count;
    }
  if (name == "index") throw Fault("index(): the value is not there");
  return count;
}

}  // namespace

bool is_method(const Value& value, const std::string& name) {
  if (value.text()) return holds(kTextMethods, name) || holds(kOtherTextMethods, name);
  if (value.dict()) return holds(kDictMethods, name) || holds(kOtherDictMethods, name);
  return value.list() && (holds(kListMethods, name) || holds(kOtherListMethods, name));
}

Value call_method(const Value& value, const std::string& name, const Arguments& given, Work& work) {
  if (value.text() && holds(kTextMethods, name))
    return text_method(*value.text(), name, given, work);
  if (value.dict() && holds(kDictMethods, name))
    return dict_method(*value.dict(), name, given, work);
  if (value.list() && holds(kListMethods, name)) return list_method(value, name, given, work);
  if (value.is_undefined())
    throw Fault(fmt::format("`{}` is undefined: it has no method `{}`",
                            shown(*value.as<Undefined>()->name),
                            shown(name)));
  if (value.list() && holds(kOtherListMethods, name))
    throw Fault(fmt::format("the method `{}` would change a list, which templates may not", name));
  throw Fault(fmt::format("the method `{}` of a {} is not known", shown(name), value.type_name()));
}

}  // namespace cohort::core::chat
