// Runs a parsed chat template.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "core/chat/ast.h"
#include "core/chat/parser.h"

namespace cohort::core::chat {

struct Rendered {
  std::string text;
  std::vector<std::pair<size_t, size_t>> generated;  ///< [begin, end) in bytes: {% generation %}.
  bool hidden_generation = false;  ///< One stood in a macro or a set: it has no place in the text.
};

/// Positional and named arguments of a filter, a method or a function.
struct Arguments {
  Values positional;
  std::vector<std::pair<std::string, Value>> named;

  /// The argument at `idx` or of that name; null where it is absent.
  const Value* find(size_t idx, const char* name) const;
  /// Throws Fault unless all named ones are among `names` and there are at most `most` positional.
  void check(const char* what, size_t most, std::initializer_list<const char*> names) const;
};

/// value | name(arguments).
Value apply_filter(const std::string& name,
                   const Value& value,
                   const Arguments& arguments,
                   Work& work);
/// value is name(arguments). Throws Fault.
bool apply_test(const std::string& name, const Value& value, const Values& arguments, Work& work);
/// value.name(arguments) of a str, list or dict.
Value call_method(const Value& value,
                  const std::string& name,
                  const Arguments& arguments,
                  Work& work);
bool is_method(const Value& value, const std::string& name);
/// a + b and the like.
Value apply_operator(const std::string& name, const Value& a, const Value& b, Work& work);
Value item_of(const Value& value, const Value& key, Work& work);
Value slice_of(
    const Value& value, const Value& from, const Value& to, const Value& step, Work& work);
/// value.name without the methods.
Value attribute_of(const Value& value, const std::string& name, Work& work);
/// Throws Fault unless it is an integer; `what` says of what.
int64_t integer_of(const Value& value, const char* what);
const std::string& text_of(const Value& value, const char* what);

/// Throws InputError "NAME:LINE: ...".
Rendered run_template(const Template& parsed,
                      std::vector<std::pair<std::string, Value>> variables,
                      const std::string& name,
                      Work& work);

}  // namespace cohort::core::chat
