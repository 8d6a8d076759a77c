// Jinja's tests: `x is string` and the like.
#include <algorithm>
#include <cmath>
#include <map>

#include <fmt/format.h>

#include "core/chat/evaluator.h"
#include "core/chat/lexer.h"
#include "core/chat/text.h"

namespace cohort::core::chat {
namespace {

struct Test {
  size_t arguments;
  bool (*holds)(const Value& value, const Values& given, Work& work);
};

Value remainder(const Value& value, const Value& by, Work& work) {
  return apply_operator("%", value, by, work);
}

const std::map<std::string, Test, std::less<>>& tests() {
  using V = const Value&;
  using A = const Values&;
  static const auto eq = [](V v, A a, Work& w) { return equal(v, a[0], w); };
  static const auto ne = [](V v, A a, Work& w) { return !equal(v, a[0], w); };
  static const auto lt = [](V v, A a, Work& w) { return order(v, a[0], w) < 0; };
  static const auto le = [](V v, A a, Work& w) { return order(v, a[0], w) <= 0; };
  static const auto gt = [](V v, A a, Work& w) { return order(v, a[0], w) > 0; };
  static const auto ge = [](V v, A a, Work& w) { return order(v, a[0], w) >= 0; };
  static const std::map<std::string, Test, std::less<>> table = {
      {"defined", {0, [](V v, A, Work&) { return !v.is_undefined(); }}},
      {"undefined", {0, [](V v, A, Work&) { return v.is_undefined(); }}},
      {"none", {0, [](V v, A, Work&) { return v.is_none(); }}},
      {"string", {0, [](V v, A, Work&) { return v.text() != nullptr; }}},
      {"mapping", {0, [](V v, A, Work&) { return v.dict() != nullptr; }}},
      {"iterable",
       {0, [](V v, A, Work&) { return v.text() || v.list() || v.dict() || v.is_undefined(); }}},
      {"sequence",
       {0,
        [](V v, A, Work&) {
          return v.text() || v.dict() || v.is_undefined() ||
                 (v.list() &&
                  (v.list()->kind == ListKind::kList || v.list()->kind == ListKind::kTuple));
        }}},
      {"number", {0, [](V v, A, Work&) { return v.is_number(); }}},
      {"integer", {0, [](V v, A, Work&) { return v.as<int64_t>() != nullptr; }}},
      {"float", {0, [](V v, A, Work&) { return v.as<double>() != nullptr; }}},
      {"boolean", {0, [](V v, A, Work&) { return v.as<bool>() != nullptr; }}},
      {"true", {0, [](V v, A, Work&) { return v.as<bool>() && *v.as<bool>(); }}},
      {"false", {0, [](V v, A, Work&) { return v.as<bool>() && !*v.as<bool>(); }}},
      {"callable", {0, [](V v, A, Work&) { return v.macro() || v.as<Function>(); }}},
      {"odd",
       {0, [](V v, A, Work& w) { return remainder(v, Value(int64_t{2}), w).number() == 1; }}},
      {"even",
       {0, [](V v, A, Work& w) { return remainder(v, Value(int64_t{2}), w).number() == 0; }}},
      {"lower",
       {0,
        [](V v, A, Work& w) { return call_method(Value(str(v, w)), "islower", {}, w).truth(); }}},
      {"upper",
       {0,
        [](V v, A, Work& w) { return call_method(Value(str(v, w)), "isupper", {}, w).truth(); }}},
      {"divisibleby", {1, [](V v, A a, Work& w) { return remainder(v, a[0], w).number() == 0; }}},
      {"in", {1, [](V v, A a, Work& w) { return contains(a[0], v, w); }}},
      {"eq", {1, eq}},
      {"equalto", {1, eq}},
      {"ne", {1, ne}},
      {"lt", {1, lt}},
      {"lessthan", {1, lt}},
      {"le", {1, le}},
      {"gt", {1, gt}},
      {"greaterthan", {1, gt}},
      {"ge", {1, ge}},
      // The two spellings of the comparison operators that selectattr takes.
      {"==", {1, eq}},
      {"!=", {1, ne}},
      {"<", {1, lt}},
      {"<=", {1, le}},
      {">", {1, gt}},
      {">=", {1, ge}},
  };
  return table;
}

}  // namespace

bool is_test(std::string_view name) { return tests().contains(name); }

bool apply_test(const std::string& name, const Value& value, const Values& given, Work& work) {
  work.spend(32);
  const Test& test = tests().find(name)->second;
  if (given.size() != test.arguments)
    throw Fault(fmt::format(
        "the test `{}` wants {} arguments, found {}", name, test.arguments, given.size()));
  return test.holds(value, given, work);
}

}  // namespace cohort::core::chat
