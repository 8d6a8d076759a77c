// The tree of a parsed chat template.
#pragma once
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/chat/value.h"

namespace cohort::core::chat {

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

enum class Op {
  kLiteral,    // value
  kName,       // name
  kList,       // items
  kTuple,      // items
  kDict,       // items: key, value, key, value, ...
  kAttribute,  // items[0].name
  kItem,       // items[0][items[1]]
  kSlice,      // items[0][items[1]:items[2]:items[3]], null where absent
  kCall,       // items[0](items[1..], named)
  kFilter,     // items[0] | name(items[1..], named)
  kTest,       // items[0] is name(items[1..])
  kNot,
  kNegate,
  kPlus,
  kAnd,
  kOr,
  kIf,       // items[1] if items[0] else items[2], which may be null
  kBinary,   // items[0] name items[1]: + - * / // % ** ~
  kCompare,  // items[0] names[0] items[1] names[1] items[2] ...
};

struct Expression {
  Op op = Op::kLiteral;
  int line = 0;
  int depth = 1;  // of the tree below: bounds recursion
  std::string name;
  Value value;
  std::vector<ExpressionPtr> items;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
  std::vector<std::string> names;
};

struct Statement;
using Block = std::vector<std::unique_ptr<Statement>>;

enum class Act {
  kText,        // text
  kOutput,      // expression
  kIf,          // branches: condition (null: else) and block
  kFor,         // names in expression [if condition]: body; otherwise
  kSet,         // names = expression, or space.attribute = expression
  kSetBlock,    // names[0] = what body writes
  kMacro,       // macro
  kGeneration,  // body
  kBreak,
  kContinue,
};

struct Statement {
  Act act = Act::kText;
  int line = 0;
  std::string text, attribute;
  std::vector<std::string> names;
  ExpressionPtr expression, condition;
  std::vector<std::pair<ExpressionPtr, Block>> branches;
  Block body, otherwise;
  std::unique_ptr<MacroNode> macro;
};

struct MacroNode {
  std::string name;
  std::vector<std::pair<std::string, ExpressionPtr>> parameters;  // with defaults or null
  Block body;
};

/// Nesting of brackets and blocks in a template, and of the tree of one expression.
inline constexpr int kMaxNesting = 60, kMaxExpressionDepth = 150;

/// What the parser checks names against.
bool is_filter(std::string_view name);
bool is_test(std::string_view name);

}  // namespace cohort::core::chat
