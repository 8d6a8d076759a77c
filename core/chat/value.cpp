#include "core/chat/value.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/chat/text.h"

namespace cohort::core::chat {
namespace {

int checked_depth(int depth) {
  if (depth > kMaxValueDepth)
    throw Fault(fmt::format("builds a value nested deeper than {}", kMaxValueDepth));
  return depth;
}

void append_repr(std::string& out, std::string_view text) {
  const bool doubles = text.find('\'') != text.npos && text.find('"') == text.npos;
  const char quote = doubles ? '"' : '\'';
  out += quote;
  for (const std::string_view one : characters(text)) {
    const int32_t point = code_point(one);
    if (one[0] == quote || one == "\\")
      (out += '\\') += one;
    else if (one == "\n")
      out += "\\n";
    else if (one == "\r")
      out += "\\r";
    else if (one == "\t")
      out += "\\t";
    else if (is_printable(point))
      out += one;
    else if (point < 0x100)
      out += fmt::format("\\x{:02x}", point < 0 ? one[0] & 0xFF : point);
    else if (point < 0x10000)
      out += fmt::format("\\u{:04x}", point);
    else
      out += fmt::format("\\U{:08x}", point);
  }
  out += quote;
}

void append_value(std::string& out, const Value& value, Work& work) {
  work.spend(8);
  const size_t before = out.size();
  if (value.is_none()) {
    out += "None";
  } else if (const bool* flag = value.as<bool>()) {
    out += *flag ? "True" : "False";
  } else if (const int64_t* number = value.as<int64_t>()) {
    out += fmt::format("{}", *number);
  } else if (const double* number = value.as<double>()) {
    out += float_text(*number);
  } else if (const std::string* text = value.text()) {
    append_repr(out, *text);
  } else if (value.is_undefined()) {
    out += "Undefined";
  } else if (const List* list = value.list();
             list && (list->kind == ListKind::kList || list->kind == ListKind::kTuple)) {
    const bool tuple = list->kind == ListKind::kTuple;
    out += tuple ? '(' : '[';
    for (size_t i = 0; i < list->items.size(); ++i) {
      if (i > 0) out += ", ";
      append_value(out, list->items[i], work);
    }
    if (tuple && list->items.size() == 1) out += ',';
    out += tuple ? ')' : ']';
    return;
  } else if (const Dict* dict = value.dict()) {
    out += '{';
    for (size_t i = 0; i < dict->entries.size(); ++i) {
      if (i > 0) out += ", ";
      append_repr(out, dict->entries[i].first);
      out += ": ";
      append_value(out, dict->entries[i].second, work);
    }
    out += '}';
    return;
  } else {
    throw Fault(fmt::format("writes a {}, which has no text of its own", value.type_name()));
  }
  work.spend(out.size() - before);
}

void append_json_text(std::string& out, std::string_view text, bool ascii) {
  out += '"';
  for (const std::string_view one : characters(text)) {
    const int32_t point = code_point(one);
    if (one == "\"" || one == "\\")
      (out += '\\') += one;
    else if (one == "\n")
      out += "\\n";
    else if (one == "\r")
      out += "\\r";
    else if (one == "\t")
      out += "\\t";
    else if (one == "\f")
      out += "\\f";
    else if (one == "\b")
      out += "\\b";
    else if ((point >= 0 && point < 0x20) || (ascii && point >= 0x7F && point < 0x10000))
      out += fmt::format("\\u{:04x}", point);
    else if (ascii && point >= 0x10000)
      out += fmt::format("\\u{:04x}\\u{:04x}",
                         0xD800 + ((point - 0x10000) >> 10),
                         0xDC00 + ((point - 0x10000) & 0x3FF));
    else
      out += one;
  }
  out += '"';
}

struct JsonWriter {
  const JsonStyle& style;
  Work& work;
  std::string out;

  void new_line(int level) {
    if (style.indent < 0) return;
    out += '\n';
    out.append(static_cast<size_t>(style.indent) * static_cast<size_t>(level), ' ');
    work.spend(static_cast<size_t>(style.indent) * static_cast<size_t>(level));
  }

  void items(const List& list, int level) {
    if (list.items.empty()) {
      out += "[]";
      return;
    }
    out += '[';
    for (size_t i = 0; i < list.items.size(); ++i) {
      if (i > 0) out += style.item_separator;
      new_line(level + 1);
      write(list.items[i], level + 1);
    }
    new_line(level);
    out += ']';
  }

  void entries(const Dict& dict, int level) {
    if (dict.entries.empty()) {
      out += "{}";
      return;
    }
    std::vector<const std::pair<std::string, Value>*> sorted;
    for (const auto& entry : dict.entries) sorted.push_back(&entry);
    if (style.sort_keys)
      std::sort(sorted.begin(), sorted.end(), [](auto* a, auto* b) { return a->first < b->first; });
    out += '{';
    for (size_t i = 0; i < sorted.size(); ++i) {
      if (i > 0) out += style.item_separator;
      new_line(level + 1);
      append_json_text(out, sorted[i]->first, style.ensure_ascii);
      out += style.key_separator;
      write(sorted[i]->second, level + 1);
    }
    new_line(level);
    out += '}';
  }

  void write(const Value& value, int level) {
    const size_t before = out.size();
    if (const List* list = value.list();
        list && list->kind != ListKind::kGenerator && list->kind != ListKind::kView) {
      items(*list, level);
      work.spend(8 + style.item_separator.size() * list->items.size());
    } else if (const Dict* dict = value.dict()) {
      entries(*dict, level);
      work.spend(8 +
                 (style.item_separator.size() + style.key_separator.size()) * dict->entries.size());
    } else {
      if (value.is_none())
        out += "null";
      else if (const bool* flag = value.as<bool>())
        out += *flag ? "true" : "false";
      else if (const int64_t* number = value.as<int64_t>())
        out += fmt::format("{}", *number);
      else if (const double* number = value.as<double>())
        out += std::isnan(*number)   ? "NaN"
               : std::isinf(*number) ? (*number > 0 ? "Infinity" : "-Infinity")
                                     : float_text(*number);
      else if (const std::string* text = value.text())
        append_json_text(out, *text, style.ensure_ascii);
      else
        throw Fault(fmt::format("tojson: a {} has no form in JSON", value.type_name()));
      work.spend(8 + out.size() - before);
    }
  }
};

}  // namespace

const Value* Dict::find(std::string_view key) const {
  for (const auto& entry : entries)
    if (entry.first == key) return &entry.second;
  return nullptr;
}

Value Value::undefined(std::string name) {
  Value value;
  value.data_ = Undefined{std::make_shared<const std::string>(std::move(name))};
  return value;
}

Value Value::function(std::string name) {
  Value value;
  value.data_ = Function{std::make_shared<const std::string>(std::move(name))};
  return value;
}

Value Value::list(Values items, ListKind kind) {
  auto list = std::make_shared<List>();
  for (const Value& item : items)
    list->depth = checked_depth(std::max(list->depth, item.depth() + 1));
  list->items = std::move(items);
  list->kind = kind;
  Value value;
  value.data_ = std::shared_ptr<const List>(std::move(list));
  return value;
}

Value Value::dict(std::vector<std::pair<std::string, Value>> entries) {
  auto dict = std::make_shared<Dict>();
  for (const auto& entry : entries)
    dict->depth = checked_depth(std::max(dict->depth, entry.second.depth() + 1));
  dict->entries = std::move(entries);
  Value value;
  value.data_ = std::shared_ptr<const Dict>(std::move(dict));
  return value;
}

Value Value::of_json(const nlohmann::ordered_json& json, int depth) {
  checked_depth(depth);
  if (json.is_boolean()) return json.get<bool>();
  if (json.is_number_unsigned() && json.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX))
    throw Fault(fmt::format("is given the integer {}; want 64 bits", json.get<uint64_t>()));
  if (json.is_number_integer()) return json.get<int64_t>();
  if (json.is_number()) return json.get<double>();
  if (json.is_string()) return json.get<std::string>();
  if (json.is_array()) {
    Values items;
    for (const auto& item : json) items.push_back(of_json(item, depth + 1));
    return list(std::move(items));
  }
  if (json.is_object()) {
    std::vector<std::pair<std::string, Value>> entries;
    for (const auto& [key, item] : json.items())
      entries.emplace_back(key, of_json(item, depth + 1));
    return dict(std::move(entries));
  }
  return None{};
}

int64_t Value::integer() const { return as<bool>() ? *as<bool>() : *as<int64_t>(); }
double Value::number() const {
  return as<double>() ? *as<double>() : static_cast<double>(integer());
}

bool Value::truth() const {
  if (is_undefined() || is_none()) return false;
  if (is_number()) return number() != 0;
  if (text()) return !text()->empty();
  if (list()) return list()->kind == ListKind::kGenerator || !list()->items.empty();
  if (dict()) return !dict()->entries.empty();
  return true;
}

const char* Value::type_name() const {
  constexpr const char* kNames[] = {"undefined",
                                    "none",
                                    "bool",
                                    "int",
                                    "float",
                                    "str",
                                    "list",
                                    "dict",
                                    "namespace",
                                    "macro",
                                    "function"};
  if (list() && list()->kind != ListKind::kList)
    return list()->kind == ListKind::kTuple  ? "tuple"
           : list()->kind == ListKind::kView ? "view"
                                             : "generator";
  return kNames[data_.index()];
}

int Value::depth() const { return list() ? list()->depth : dict() ? dict()->depth : 0; }

std::string str(const Value& value, Work& work) {
  if (const std::string* text = value.text()) {
    work.spend(text->size());
    return *text;
  }
  if (value.is_undefined()) return "";
  return repr(value, work);
}

std::string repr(const Value& value, Work& work) {
  std::string out;
  append_value(out, value, work);
  return out;
}

std::string float_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  // Shortest digits that read back; Python writes an exponent below 1e-4 and from 1e16 on.
  const double size = std::fabs(value);
  if (size == 0 || (size >= 1e-4 && size < 1e16)) {
    std::string text = fmt::format("{}", value);
    if (text.find('e') != text.npos) text = fmt::format("{:f}", value);
    return text.find('.') == text.npos ? text + ".0" : text;
  }
  const std::string text = fmt::format("{}", value);
  if (text.find('e') != text.npos) return text;
  // Plain digits where Python has an exponent.
  std::string best;
  for (int digits = 0; digits <= 17; ++digits) {
    best = fmt::format("{:.{}e}", value, digits);
    if (std::stod(best) == value) break;
  }
  return best;
}

std::string to_json(const Value& value, const JsonStyle& style, Work& work) {
  JsonWriter writer{style, work, {}};
  writer.write(value, 0);
  return std::move(writer.out);
}

Values walk(const Value& value, Work& work) {
  Values out;
  if (const List* list = value.list()) {
    if (list->kind == ListKind::kGenerator) {
      if (list->walked) throw Fault("walks the result of a filter twice; want `| list` after it");
      list->walked = true;
    }
    out = list->items;
  } else if (const Dict* dict = value.dict()) {
    for (const auto& entry : dict->entries) out.emplace_back(entry.first);
  } else if (const std::string* text = value.text()) {
    work.spend(64 * text->size());
    for (const std::string_view one : characters(*text)) out.emplace_back(one);
  } else if (!value.is_undefined()) {
    throw Fault(fmt::format("a {} cannot be iterated over", value.type_name()));
  }
  work.spend(32 * out.size());
  return out;
}

bool equal(const Value& a, const Value& b, Work& work) {
  work.spend(8);
  if (a.is_number() && b.is_number())
    return a.is_integer() && b.is_integer() ? a.integer() == b.integer() : a.number() == b.number();
  if (a.text() && b.text()) {
    work.spend(a.text()->size() / 16);
    return *a.text() == *b.text();
  }
  if (a.list() && b.list()) {
    const auto& [x, y] = std::pair(a.list(), b.list());
    if (x->kind != y->kind || x->items.size() != y->items.size()) return false;
    for (size_t i = 0; i < x->items.size(); ++i)
      if (!equal(x->items[i], y->items[i], work)) return false;
    return true;
  }
  if (a.dict() && b.dict()) {
    if (a.dict()->entries.size() != b.dict()->entries.size()) return false;
    for (const auto& [key, value] : a.dict()->entries) {
      work.spend(b.dict()->entries.size());
      const Value* other = b.dict()->find(key);
      if (!other || !equal(value, *other, work)) return false;
    }
    return true;
  }
  if (a.space() || b.space()) return a.space() == b.space();
  if (a.macro() || b.macro()) return a.macro() == b.macro();
  return (a.is_none() && b.is_none()) || (a.is_undefined() && b.is_undefined());
}

int order(const Value& a, const Value& b, Work& work) {
  work.spend(8);
  if (a.is_number() && b.is_number()) {
    if (a.is_integer() && b.is_integer())
      return a.integer() < b.integer() ? -1 : a.integer() > b.integer();
    if (std::isnan(a.number()) || std::isnan(b.number()))
      throw Fault("orders a number that is nan");
    return a.number() < b.number() ? -1 : a.number() > b.number();
  }
  if (a.text() && b.text()) {
    work.spend(a.text()->size() / 16);
    const int sign = a.text()->compare(*b.text());
    return sign < 0 ? -1 : sign > 0;
  }
  if (a.list() && b.list() && a.list()->kind == b.list()->kind) {
    const auto &x = a.list()->items, &y = b.list()->items;
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i)
      if (!equal(x[i], y[i], work)) return order(x[i], y[i], work);
    return x.size() < y.size() ? -1 : x.size() > y.size();
  }
  throw Fault(fmt::format("a {} and a {} have no order", a.type_name(), b.type_name()));
}

bool contains(const Value& haystack, const Value& needle, Work& work) {
  if (const std::string* text = haystack.text()) {
    if (!needle.text())
      throw Fault(fmt::format("`in`: a str cannot hold a {}", needle.type_name()));
    work.spend((text->size() + needle.text()->size()) / 8);
    return find(*text, *needle.text()) != text->npos;
  }
  if (const Dict* dict = haystack.dict()) {
    work.spend(dict->entries.size());
    return needle.text() && dict->find(*needle.text());
  }
  for (const Value& item : walk(haystack, work))
    if (equal(item, needle, work)) return true;
  return false;
}

}  // namespace cohort::core::chat
