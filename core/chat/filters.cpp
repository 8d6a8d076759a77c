// Jinja's filters, as many as chat templates use.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>

#include <fmt/format.h>

#include "core/chat/evaluator.h"
#include "core/chat/lexer.h"
#include "core/chat/text.h"

namespace cohort::core::chat {
namespace {

using Filter = Value (*)(const Value& value, const Arguments& given, Work& work);

/// a.b.0: attributes, keys and places.
Value path_of(const Value& value, const std::string& path, Work& work) {
  Value out = value;
  for (const std::string_view part : split(path, ".", -1)) {
    int64_t idx = 0;
    const auto read = std::from_chars(part.data(), part.data() + part.size(), idx);
    if (read.ec == std::errc() && read.ptr == part.data() + part.size())
      out = item_of(out, Value(idx), work);
    else
      out =
          out.dict() ? item_of(out, Value(part), work) : attribute_of(out, std::string(part), work);
  }
  return out;
}

const Value& first_of(const Arguments& given, const char* what) {
  if (given.positional.empty()) throw Fault(fmt::format("{} wants an argument", what));
  return given.positional[0];
}

Value generator(Values items) { return Value::list(std::move(items), ListKind::kGenerator); }

Arguments rest_of(const Arguments& given, size_t first) {
  Arguments out = given;
  out.positional.erase(out.positional.begin(),
                       out.positional.begin() +
                           static_cast<std::ptrdiff_t>(std::min(first, given.positional.size())));
  return out;
}

Value map(const Value& value, const Arguments& given, Work& work) {
  const Value* path = given.positional.empty() ? given.find(0, "attribute") : nullptr;
  const Value* otherwise = path ? given.find(9, "default") : nullptr;
  if (path) given.check("map", 0, {"attribute", "default"});
  const std::string name = path ? "" : text_of(first_of(given, "map"), "map");
  // A text walks to its letters, so that map of map could go on as deep as it is written.
  if (!path && name == "map") throw Fault("map of map is not known");
  if (!path && !is_filter(name))
    throw Fault(fmt::format("the filter `{}` is not known", shown(name)));
  const Arguments rest = rest_of(given, 1);
  Values out;
  for (const Value& item : walk(value, work)) {
    if (!path) {
      out.push_back(apply_filter(name, item, rest, work));
      continue;
    }
    Value one = path->text() ? path_of(item, *path->text(), work) : item_of(item, *path, work);
    out.push_back(one.is_undefined() && otherwise ? *otherwise : std::move(one));
  }
  return generator(std::move(out));
}

Value chosen(
    const Value& value, const Arguments& given, bool by_attribute, bool keeps, Work& work) {
  given.check("select and reject", 99, {});
  const size_t first = by_attribute ? 1 : 0;
  const std::string path = by_attribute ? text_of(first_of(given, "selectattr"), "selectattr") : "";
  const std::string test =
      given.positional.size() > first ? text_of(given.positional[first], "select") : "";
  if (!test.empty() && !is_test(test))
    throw Fault(fmt::format("the test `{}` is not known", shown(test)));
  const Values rest = rest_of(given, first + 1).positional;
  Values out;
  for (Value& item : walk(value, work)) {
    const Value tested = by_attribute ? path_of(item, path, work) : item;
    if ((test.empty() ? tested.truth() : apply_test(test, tested, rest, work)) == keeps)
      out.push_back(std::move(item));
  }
  return generator(std::move(out));
}

int64_t length_of(const Value& value) {
  if (value.text()) return character_count(*value.text());
  if (value.list() && value.list()->kind != ListKind::kGenerator)
    return static_cast<int64_t>(value.list()->items.size());
  if (value.dict()) return static_cast<int64_t>(value.dict()->entries.size());
  if (value.is_undefined()) return 0;
  throw Fault(fmt::format("a {} has no length", value.type_name()));
}

Value join(const Value& value, const Arguments& given, Work& work) {
  given.check("join", 2, {"d", "attribute"});
  const Value* between = given.find(0, "d");
  const Value* path = given.find(1, "attribute");
  const std::string separator = between ? str(*between, work) : "";
  std::string out;
  bool first = true;
  for (const Value& item : walk(value, work)) {
    if (!first) out += separator;
    first = false;
    out += str(path ? path_of(item, text_of(*path, "join"), work) : item, work);
    work.spend(separator.size());
  }
  return out;
}

Value to_json_filter(const Value& value, const Arguments& given, Work& work) {
  given.check("tojson", 3, {"indent", "ensure_ascii", "separators", "sort_keys"});
  JsonStyle style;
  const Value* ascii = given.find(0, "ensure_ascii");
  const Value* indent = given.find(1, "indent");
  const Value* separators = given.find(2, "separators");
  const Value* sorted = given.find(9, "sort_keys");
  style.ensure_ascii = ascii && ascii->truth();
  style.sort_keys = sorted && sorted->truth();
  if (indent && !indent->is_none()) {
    const int64_t width = integer_of(*indent, "tojson");
    if (width < 0 || width > 16) throw Fault("tojson wants an indent of 0 to 16");
    style.indent = static_cast<int>(width);
    style.item_separator = std::string(1, ',');  // a literal here makes GCC 12 warn of nothing
  }
  if (separators && !separators->is_none()) {
    const Values both = walk(*separators, work);
    if (both.size() != 2) throw Fault("tojson wants two separators");
    style.item_separator = text_of(both[0], "tojson");
    style.key_separator = text_of(both[1], "tojson");
  }
  return to_json(value, style, work);
}

Value to_int(const Value& value, const Arguments& given, Work&) {
  given.check("int", 1, {"default"});
  const Value* fallback = given.find(0, "default");
  const Value otherwise = fallback ? *fallback : Value(int64_t{0});
  if (value.is_integer()) return value.integer();
  double number = 0;
  if (const double* exact = value.as<double>()) {
    number = *exact;
  } else if (value.text()) {
    const std::string_view text = strip(*value.text(), kBoth);
    const size_t plus = text.starts_with("+");
    int64_t out = 0;
    const char* end = text.data() + text.size();
    if (const auto read = std::from_chars(text.data() + plus, end, out);
        read.ec == std::errc() && read.ptr == end)
      return out;
    if (const auto read = std::from_chars(text.data() + plus, end, number);
        read.ec != std::errc() || read.ptr != end)
      return otherwise;
  } else {
    return otherwise;
  }
  if (!(std::fabs(number) < 9.2e18)) {
    if (std::isfinite(number)) throw Fault("int: the number has more than 64 bits");
    return otherwise;
  }
  return static_cast<int64_t>(number);
}

Value to_float(const Value& value, const Arguments& given, Work&) {
  given.check("float", 1, {"default"});
  const Value* fallback = given.find(0, "default");
  if (value.is_number()) return value.number();
  if (value.text()) {
    const std::string_view text = strip(*value.text(), kBoth);
    double out = 0;
    const char* end = text.data() + text.size();
    if (const auto read = std::from_chars(text.data() + text.starts_with("+"), end, out);
        read.ec == std::errc() && read.ptr == end)
      return out;
  }
  return fallback ? *fallback : Value(0.0);
}

Value indent(const Value& value, const Arguments& given, Work& work) {
  given.check("indent", 3, {"width", "first", "blank"});
  const Value* width = given.find(0, "width");
  const Value* first = given.find(1, "first");
  const Value* blank = given.find(2, "blank");
  std::string space = "    ";
  if (width && width->text())
    space = *width->text();
  else if (width) {
    const int64_t count = integer_of(*width, "indent");
    if (count < 0 || count > 1000) throw Fault("indent wants a width of 0 to 1000");
    space.assign(static_cast<size_t>(count), ' ');
  }
  const std::string text = text_of(value, "indent") + "\n";
  const auto lines = split_lines(text, false);
  work.spend(text.size() + lines.size() * (space.size() + 32));
  std::string out;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out += '\n';
    const bool filled = !lines[i].empty() || (i > 0 && blank && blank->truth());
    if (i == 0 ? first && first->truth() : filled) out += space;
    out += lines[i];
  }
  return out;
}

/// What sort, min, max and unique compare.
Value key_of(const Value& item, const Arguments& given, bool exact_case, Work& work) {
  const Value* path = given.find(9, "attribute");
  const Value key = path ? path_of(item, text_of(*path, "attribute"), work) : item;
  return key.text() && !exact_case ? Value(lower(*key.text())) : key;
}

Value sorted(const Value& value, const Arguments& given, Work& work) {
  given.check("sort", 1, {"reverse", "case_sensitive", "attribute"});
  const Value* reverse = given.find(0, "reverse");
  const Value* exact = given.find(9, "case_sensitive");
  std::vector<std::pair<Value, Value>> keyed;
  for (const Value& item : walk(value, work))
    keyed.emplace_back(key_of(item, given, exact && exact->truth(), work), item);
  const bool down = reverse && reverse->truth();
  std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& a, const auto& b) {
    return (down ? order(b.first, a.first, work) : order(a.first, b.first, work)) < 0;
  });
  Values out;
  for (auto& [key, item] : keyed) out.push_back(std::move(item));
  return Value::list(std::move(out));
}

Value extreme(const Value& value, const Arguments& given, int sign, Work& work) {
  given.check("min and max", 0, {"case_sensitive", "attribute"});
  const Value* exact = given.find(9, "case_sensitive");
  Value best = Value::undefined("an element of an empty list"), best_key;
  bool first = true;
  for (const Value& item : walk(value, work)) {
    Value key = key_of(item, given, exact && exact->truth(), work);
    if (!first && order(key, best_key, work) * sign <= 0) continue;
    first = false;
    best = item;
    best_key = std::move(key);
  }
  return best;
}

Value sum(const Value& value, const Arguments& given, Work& work) {
  given.check("sum", 0, {"attribute", "start"});
  const Value* start = given.find(9, "start");
  const Value* path = given.find(9, "attribute");
  Value out = start ? *start : Value(int64_t{0});
  for (const Value& item : walk(value, work))
    out = apply_operator("+", out, path ? path_of(item, text_of(*path, "sum"), work) : item, work);
  return out;
}

Value unique(const Value& value, const Arguments& given, Work& work) {
  given.check("unique", 0, {"case_sensitive", "attribute"});
  const Value* exact = given.find(9, "case_sensitive");
  Values keys, out;
  for (Value& item : walk(value, work)) {
    Value key = key_of(item, given, exact && exact->truth(), work);
    if (std::any_of(
            keys.begin(), keys.end(), [&](const Value& seen) { return equal(seen, key, work); }))
      continue;
    keys.push_back(std::move(key));
    out.push_back(std::move(item));
  }
  return generator(std::move(out));
}

Value entries(const Value& value, const Arguments& given, Work& work) {
  given.check("items", 0, {});
  if (value.is_undefined()) return generator({});
  if (!value.dict()) throw Fault(fmt::format("items: a {} has none", value.type_name()));
  return generator(call_method(value, "items", {}, work).list()->items);
}

Value sorted_entries(const Value& value, const Arguments& given, Work& work) {
  given.check("dictsort", 3, {"case_sensitive", "by", "reverse"});
  const Value *exact = given.find(0, "case_sensitive"), *by = given.find(1, "by"),
              *reverse = given.find(2, "reverse");
  if (!value.dict()) throw Fault(fmt::format("dictsort: a {} has no entries", value.type_name()));
  const std::string part = by ? text_of(*by, "dictsort") : "key";
  if (part != "key" && part != "value") throw Fault("dictsort wants by=\"key\" or by=\"value\"");
  Values items = call_method(value, "items", {}, work).list()->items;
  const auto key = [&](const Value& item) {
    return key_of(item.list()->items[part == "value"], {}, exact && exact->truth(), work);
  };
  const bool down = reverse && reverse->truth();
  std::stable_sort(items.begin(), items.end(), [&](const Value& a, const Value& b) {
    return (down ? order(key(b), key(a), work) : order(key(a), key(b), work)) < 0;
  });
  return Value::list(std::move(items));
}

Value rounded(const Value& value, const Arguments& given, Work&) {
  given.check("round", 2, {"precision", "method"});
  const Value *precision = given.find(0, "precision"), *method = given.find(1, "method");
  const std::string how = method ? text_of(*method, "round") : "common";
  const int64_t digits = precision ? integer_of(*precision, "round") : 0;
  if (!value.is_number()) throw Fault(fmt::format("round: a {} is no number", value.type_name()));
  if (digits < 0 || digits > 15) throw Fault("round wants a precision of 0 to 15");
  const double scale = std::pow(10.0, static_cast<double>(digits)), number = value.number();
  if (how == "ceil") return std::ceil(number * scale) / scale;
  if (how == "floor") return std::floor(number * scale) / scale;
  if (how != "common") throw Fault("round wants \"common\", \"ceil\" or \"floor\"");
  if (value.is_integer()) return value.integer();
  return std::stod(fmt::format("{:.{}f}", number, digits));  // ties by the exact value, as Python
}

Value reversed(const Value& value, const Arguments& given, Work& work) {
  given.check("reverse", 0, {});
  Values items = walk(value, work);
  std::reverse(items.begin(), items.end());
  if (!value.text()) return generator(std::move(items));
  std::string out;
  for (const Value& item : items) out += *item.text();
  return out;
}

Value defaulted(const Value& value, const Arguments& given, Work&) {
  given.check("default", 2, {"default_value", "boolean"});
  const Value *otherwise = given.find(0, "default_value"), *boolean = given.find(1, "boolean");
  const bool missing = value.is_undefined() || (boolean && boolean->truth() && !value.truth());
  if (!missing) return value;
  return otherwise ? *otherwise : Value("");
}

Value of_text(const char* method, const Value& value, const Arguments& given, Work& work) {
  return call_method(Value(str(value, work)), method, given, work);
}

Value end_of(const Value& value, const Arguments& given, bool last, Work& work) {
  given.check("first and last", 0, {});
  if (last && value.list() && value.list()->kind == ListKind::kGenerator)
    throw Fault("last: a generator has none; want `| list` before it");
  Values items = walk(value, work);
  if (items.empty()) return Value::undefined("an element of an empty list");
  return last ? items.back() : items.front();
}

const std::map<std::string, Filter, std::less<>>& filters() {
  static const std::map<std::string, Filter, std::less<>> table = {
      {"abs",
       [](const Value& v, const Arguments& a, Work& w) {
         a.check("abs", 0, {});
         if (!v.is_number()) throw Fault(fmt::format("abs: a {} is no number", v.type_name()));
         return v.number() < 0 ? apply_operator("*", Value(int64_t{-1}), v, w) : v;
       }},
      {"capitalize",
       [](const Value& v, const Arguments& a, Work& w) { return of_text("capitalize", v, a, w); }},
      {"count",
       [](const Value& v, const Arguments& a, Work&) {
         a.check("count", 0, {});
         return Value(length_of(v));
       }},
      {"d", defaulted},
      {"default", defaulted},
      {"dictsort", sorted_entries},
      {"first", [](const Value& v, const Arguments& a, Work& w) { return end_of(v, a, false, w); }},
      {"float", to_float},
      {"indent", indent},
      {"int", to_int},
      {"items", entries},
      {"join", join},
      {"last", [](const Value& v, const Arguments& a, Work& w) { return end_of(v, a, true, w); }},
      {"length",
       [](const Value& v, const Arguments& a, Work&) {
         a.check("length", 0, {});
         return Value(length_of(v));
       }},
      {"list",
       [](const Value& v, const Arguments& a, Work& w) {
         a.check("list", 0, {});
         return Value::list(walk(v, w));
       }},
      {"lower",
       [](const Value& v, const Arguments& a, Work& w) { return of_text("lower", v, a, w); }},
      {"map", map},
      {"max", [](const Value& v, const Arguments& a, Work& w) { return extreme(v, a, 1, w); }},
      {"min", [](const Value& v, const Arguments& a, Work& w) { return extreme(v, a, -1, w); }},
      {"reject",
       [](const Value& v, const Arguments& a, Work& w) { return chosen(v, a, false, false, w); }},
      {"rejectattr",
       [](const Value& v, const Arguments& a, Work& w) { return chosen(v, a, true, false, w); }},
      {"replace",
       [](const Value& v, const Arguments& a, Work& w) { return of_text("replace", v, a, w); }},
      {"reverse", reversed},
      {"round", rounded},
      {"safe",
       [](const Value& v, const Arguments& a, Work& w) {
         a.check("safe", 0, {});
         return Value(str(v, w));
       }},
      {"select",
       [](const Value& v, const Arguments& a, Work& w) { return chosen(v, a, false, true, w); }},
      {"selectattr",
       [](const Value& v, const Arguments& a, Work& w) { return chosen(v, a, true, true, w); }},
      {"sort", sorted},
      {"string",
       [](const Value& v, const Arguments& a, Work& w) {
         a.check("string", 0, {});
         return Value(str(v, w));
       }},
      {"sum", sum},
      {"tojson", to_json_filter},
      {"trim",
       [](const Value& v, const Arguments& a, Work& w) { return of_text("strip", v, a, w); }},
      {"unique", unique},
      {"upper",
       [](const Value& v, const Arguments& a, Work& w) { return of_text("upper", v, a, w); }},
  };
  return table;
}

}  // namespace

bool is_filter(std::string_view name) { return filters().contains(name); }

Value apply_filter(const std::string& name,
                   const Value& value,
                   const Arguments& given,
                   Work& work) {
  work.spend(32);
  return filters().find(name)->second(value, given, work);
}

}  // namespace cohort::core::chat
