// Arithmetic, items, slices and attributes of chat templates' values, as Python has them.
#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "core/chat/evaluator.h"
#include "core/chat/lexer.h"
#include "core/chat/text.h"

namespace cohort::core::chat {
namespace {

[[noreturn]] void fail(const std::string& name, const Value& a, const Value& b) {
  const auto told = [](const Value& value) {
    return value.is_undefined()
               ? fmt::format("`{}`, which is undefined,", shown(*value.as<Undefined>()->name))
               : fmt::format("a {}", value.type_name());
  };
  throw Fault(fmt::format("`{}` does not join {} and {}", name, told(a), told(b)));
}

Value integers(const std::string& name, int64_t a, int64_t b) {
  int64_t out = 0;
  bool overflows = false;
  if (name == "+")
    overflows = __builtin_add_overflow(a, b, &out);
  else if (name == "-")
    overflows = __builtin_sub_overflow(a, b, &out);
  else if (name == "*")
    overflows = __builtin_mul_overflow(a, b, &out);
  else if (name == "**") {
    if (b < 0) return std::pow(static_cast<double>(a), static_cast<double>(b));
    out = 1;
    if (a == 0 || a == 1) return b == 0 ? int64_t{1} : a;
    if (a == -1) return b % 2 ? int64_t{-1} : int64_t{1};
    for (; b > 0 && !overflows; --b) overflows = __builtin_mul_overflow(out, a, &out);
  } else {  // // and %
    if (a == INT64_MIN && b == -1)
      overflows = true;
    else {
      const int64_t rest = a % b, floor_rest = rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
      out = name == "%" ? floor_rest : (a - floor_rest) / b;
      if (name == "//" && rest != floor_rest) out = a / b - 1;
    }
  }
  if (overflows) throw Fault(fmt::format("{} {} {} has more than 64 bits", a, name, b));
  return out;
}

Value floats(const std::string& name, double a, double b) {
  if (name == "+") return a + b;
  if (name == "-") return a - b;
  if (name == "*") return a * b;
  if (name == "/") return a / b;
  if (name == "**") return std::pow(a, b);
  double rest = std::fmod(a, b);
  if (rest != 0 && (rest < 0) != (b < 0)) rest += b;
  if (name == "%") return rest;
  return std::floor((a - rest) / b + 0.5);
}

Value repeated(const Value& value, int64_t count, Work& work) {
  const size_t times = static_cast<size_t>(std::max<int64_t>(count, 0));
  if (const std::string* text = value.text()) {
    if (!text->empty()) work.spend(std::min(times, size_t{1} << 32) * text->size());
    std::string out;
    for (size_t i = 0; i < times && !text->empty(); ++i) out += *text;
    return out;
  }
  const List& list = *value.list();
  if (!list.items.empty()) work.spend(std::min(times, size_t{1} << 32) * list.items.size() * 32);
  Values out;
  for (size_t i = 0; i < times && !list.items.empty(); ++i)
    out.insert(out.end(), list.items.begin(), list.items.end());
  return Value::list(std::move(out), list.kind);
}

bool is_sequence(const Value& value) {
  return value.text() || (value.list() && (value.list()->kind == ListKind::kList ||
                                           value.list()->kind == ListKind::kTuple));
}

int64_t bound(const Value& value, int64_t absent, int64_t size, bool backwards) {
  if (value.is_none()) return absent;
  int64_t out = integer_of(value, "a slice");
  if (out < 0) out = std::max<int64_t>(out + size, backwards ? -1 : 0);
  return std::min(out, backwards ? size - 1 : size);
}

}  // namespace

int64_t integer_of(const Value& value, const char* what) {
  if (!value.is_integer())
    throw Fault(fmt::format("{} wants an integer, found {}", what, value.type_name()));
  return value.integer();
}

const std::string& text_of(const Value& value, const char* what) {
  if (!value.text())
    throw Fault(fmt::format("{} wants a string, found {}", what, value.type_name()));
  return *value.text();
}

Value apply_operator(const std::string& name, const Value& a, const Value& b, Work& work) {
  if (name == "~") return str(a, work) + str(b, work);
  if (a.is_number() && b.is_number()) {
    const bool divides = name == "/" || name == "//" || name == "%";
    if (divides && b.number() == 0) throw Fault(fmt::format("`{}` divides by zero", name));
    return a.is_integer() && b.is_integer() && name != "/"
               ? integers(name, a.integer(), b.integer())
               : floats(name, a.number(), b.number());
  }
  if (name == "+" && a.text() && b.text()) {
    work.spend(a.text()->size() + b.text()->size());
    return *a.text() + *b.text();
  }
  if (name == "+" && is_sequence(a) && is_sequence(b) && a.list() && b.list() &&
      a.list()->kind == b.list()->kind) {
    Values items = a.list()->items;
    items.insert(items.end(), b.list()->items.begin(), b.list()->items.end());
    work.spend(32 * items.size());
    return Value::list(std::move(items), a.list()->kind);
  }
  if (name == "*" && is_sequence(a) && b.is_integer()) return repeated(a, b.integer(), work);
  if (name == "*" && is_sequence(b) && a.is_integer()) return repeated(b, a.integer(), work);
  if (name == "%" && a.text()) throw Fault("`%` on a string is not known; want `~`");
  fail(name, a, b);
}

Value item_of(const Value& value, const Value& key, Work& work) {
  if (const Dict* dict = value.dict()) {
    work.spend(dict->entries.size());
    const Value* found = key.text() ? dict->find(*key.text()) : nullptr;
    return found ? *found : Value::undefined(str(key, work));
  }
  if (value.is_undefined())
    throw Fault(
        fmt::format("`{}` is undefined: it has no items", shown(*value.as<Undefined>()->name)));
  if (value.space() && key.text()) return attribute_of(value, *key.text(), work);
  const auto at = [&](int64_t size) {
    const int64_t idx = key.integer() < 0 ? key.integer() + size : key.integer();
    return idx >= 0 && idx < size ? idx : -1;
  };
  if (const List* list = value.list();
      list && key.is_integer() && list->kind != ListKind::kGenerator) {
    const int64_t idx = at(static_cast<int64_t>(list->items.size()));
    if (idx >= 0) return list->items[static_cast<size_t>(idx)];
  }
  if (const std::string* text = value.text(); text && key.is_integer()) {
    work.spend(16 * text->size());
    const auto all = characters(*text);
    const int64_t idx = at(static_cast<int64_t>(all.size()));
    if (idx >= 0) return all[static_cast<size_t>(idx)];
  }
  return Value::undefined(str(key, work));
}

Value slice_of(
    const Value& value, const Value& from, const Value& to, const Value& step_value, Work& work) {
  if (!value.text() && !(value.list() && value.list()->kind != ListKind::kGenerator))
    throw Fault(fmt::format("a {} has no slices", value.type_name()));
  const int64_t step = step_value.is_none() ? 1 : integer_of(step_value, "a slice");
  if (step == 0) throw Fault("a slice wants a step that is not 0");
  std::vector<std::string_view> all;
  if (value.text()) {
    work.spend(16 * value.text()->size());
    all = characters(*value.text());
  }
  const auto size = static_cast<int64_t>(value.text() ? all.size() : value.list()->items.size());
  const bool backwards = step < 0;
  const int64_t begin = bound(from, backwards ? size - 1 : 0, size, backwards);
  const int64_t end = bound(to, backwards ? -1 : size, size, backwards);
  std::string text;
  Values items;
  for (__int128 i = begin; backwards ? i > end : i < end; i += step) {
    if (value.text())
      text += all[static_cast<size_t>(i)];
    else
      items.push_back(value.list()->items[static_cast<size_t>(i)]);
  }
  work.spend(32 * items.size());
  if (value.text()) return text;
  return Value::list(std::move(items), value.list()->kind);
}

Value attribute_of(const Value& value, const std::string& name, Work& work) {
  if (value.is_undefined())
    throw Fault(fmt::format("`{}` is undefined: it has no attribute `{}`",
                            shown(*value.as<Undefined>()->name),
                            shown(name)));
  if (name.starts_with("_") && !value.dict())
    throw Fault(fmt::format("the attribute `{}` begins with _", shown(name)));
  if (Namespace* space = value.space()) {
    work.spend(space->entries.size());
    for (const auto& [key, item] : space->entries)
      if (key == name) return item;
  } else if (value.dict()) {
    return item_of(value, Value(name), work);
  }
  return Value::undefined(name);
}

}  // namespace cohort::core::chat
