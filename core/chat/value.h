// What an expression of a chat template gives: Python's values as far as templates meet them.
//
// Values are immutable (transformers renders in an immutable sandbox) and share their contents; the
// one thing that changes is a namespace(). Every list and dict knows how deep it is nested, so that
// no value is deeper than kMaxValueDepth and recursion over values is bounded.
#pragma once
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace cohort::core::chat {

/// Something a template may not do. Has no place yet: the evaluator adds name and line.
struct Fault : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Bounds what one rendering may do: a unit is about a byte made or a nanosecond spent.
class Work {
 public:
  explicit Work(int64_t units) : left_(units) {}
  void spend(size_t units) {
    left_ -= static_cast<int64_t>(std::min<size_t>(units, size_t{1} << 40));
    if (left_ < 0) throw Fault("does too much work: a loop without end, or texts that grow");
  }

 private:
  int64_t left_;
};

inline constexpr int kMaxValueDepth = 100;

class Value;
struct MacroNode;
using Values = std::vector<Value>;

enum class ListKind {
  kList,
  kTuple,
  kView,      ///< dict.items(), range(): can be counted and walked.
  kGenerator  ///< map, select, ...: can be walked once; true even when empty, as in Python.
};
struct List {
  Values items;
  ListKind kind = ListKind::kList;
  int depth = 1;
  mutable bool walked = false;
};
struct Dict {
  std::vector<std::pair<std::string, Value>> entries;  // in the order of insertion
  int depth = 1;
  const Value* find(std::string_view key) const;
};
struct Namespace {
  std::vector<std::pair<std::string, Value>> entries;
};

struct Undefined {
  std::shared_ptr<const std::string> name = std::make_shared<const std::string>("a value");
};
struct None {};
/// range, namespace, ..., or a method that is named and not called.
struct Function {
  std::shared_ptr<const std::string> name;
};

class Value {
 public:
  using Text = std::shared_ptr<const std::string>;
  using Data = std::variant<Undefined,
                            None,
                            bool,
                            int64_t,
                            double,
                            Text,
                            std::shared_ptr<const List>,
                            std::shared_ptr<const Dict>,
                            std::shared_ptr<Namespace>,
                            const MacroNode*,
                            Function>;

  Value() = default;
  Value(bool value) : data_(value) {}
  Value(int64_t value) : data_(value) {}
  Value(double value) : data_(value) {}
  Value(std::string text) : data_(std::make_shared<const std::string>(std::move(text))) {}
  Value(std::string_view text) : Value(std::string(text)) {}
  Value(const char* text) : Value(std::string(text)) {}
  Value(None none) : data_(none) {}
  Value(std::shared_ptr<Namespace> space) : data_(std::move(space)) {}
  explicit Value(const MacroNode* macro) : data_(macro) {}
  static Value undefined(std::string name);
  static Value function(std::string name);
  /// Throw Fault when too deep.
  static Value list(Values items, ListKind kind = ListKind::kList);
  static Value dict(std::vector<std::pair<std::string, Value>> entries);
  /// Throws Fault for JSON that is nested too deeply.
  static Value of_json(const nlohmann::ordered_json& json, int depth = 0);

  template <class T>
  const T* as() const {
    return std::get_if<T>(&data_);
  }
  bool is_undefined() const { return as<Undefined>(); }
  bool is_none() const { return as<None>(); }
  const std::string* text() const { return as<Text>() ? as<Text>()->get() : nullptr; }
  const List* list() const { return pointee<const List>(); }
  const Dict* dict() const { return pointee<const Dict>(); }
  Namespace* space() const { return pointee<Namespace>(); }
  const MacroNode* macro() const {
    return as<const MacroNode*>() ? *as<const MacroNode*>() : nullptr;
  }
  bool is_integer() const { return as<int64_t>() || as<bool>(); }
  bool is_number() const { return is_integer() || as<double>(); }
  int64_t integer() const;  ///< Of an integer or a bool.
  double number() const;    ///< Of any number.

  bool truth() const;
  /// "str", "list", ...: for messages.
  const char* type_name() const;
  int depth() const;

 private:
  template <class T>
  T* pointee() const {
    const auto* found = as<std::shared_ptr<T>>();
    return found ? found->get() : nullptr;
  }
  Data data_;
};

/// str(value), as {{ }} writes it. Undefined is "".
std::string str(const Value& value, Work& work);
/// repr(value): a text in quotes.
std::string repr(const Value& value, Work& work);
/// Python's shortest text of a float: "1.0", "1e-05", "inf".
std::string float_text(double value);

struct JsonStyle {
  int indent = -1;  ///< -1: one line.
  bool ensure_ascii = false, sort_keys = false;
  std::string item_separator = ", ", key_separator = ": ";
};
/// json.dumps(value). Throws Fault for what JSON has no form for.
std::string to_json(const Value& value, const JsonStyle& style, Work& work);

/// Items of a list, keys of a dict, characters of a text; nothing for undefined. Throws Fault for
/// what cannot be walked, and for a generator walked twice.
Values walk(const Value& value, Work& work);
bool equal(const Value& a, const Value& b, Work& work);
/// -1, 0, 1. Throws Fault for what has no order.
int order(const Value& a, const Value& b, Work& work);
/// `needle in haystack`.
bool contains(const Value& haystack, const Value& needle, Work& work);

}  // namespace cohort::core::chat
