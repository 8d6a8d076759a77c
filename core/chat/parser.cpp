#include "core/chat/parser.h"

#include <algorithm>
#include <charconv>

#include "core/base/error.h"
#include "core/chat/lexer.h"

namespace cohort::core::chat {
namespace {

class Parser {
 public:
  Parser(std::string_view source, const std::string& name)
      : tokens_(tokenize(source, name)), name_(name) {}

  Template run() {
    Template out;
    out.body = block({});
    out.has_generation = has_generation_;
    return out;
  }

 private:
  // Tokens.
  const Token& now() const { return tokens_[at_]; }
  const Token& ahead() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  Token next() {
    Token token = tokens_[at_];
    if (at_ + 1 < tokens_.size()) ++at_;
    return token;
  }
  bool is_operator(std::string_view text) const {
    return now().lex == Lex::kOperator && now().text == text;
  }
  bool is_word(std::string_view text) const {
    return now().lex == Lex::kName && now().text == text;
  }
  bool skip_operator(std::string_view text) {
    const bool found = is_operator(text);
    if (found) next();
    return found;
  }
  bool skip_word(std::string_view text) {
    const bool found = is_word(text);
    if (found) next();
    return found;
  }
  [[noreturn]] void fail(const std::string& what) const {
    throw InputError(fmt::format("{}:{}: {}", name_, now().line, what));
  }
  std::string found() const {
    switch (now().lex) {
      case Lex::kEnd:
        return "the end";
      case Lex::kText:
        return "text";
      case Lex::kBlockBegin:
        return "{%";
      case Lex::kBlockEnd:
        return "%}";
      case Lex::kOutputBegin:
        return "{{";
      case Lex::kOutputEnd:
        return "}}";
      case Lex::kString:
        return fmt::format("the string '{}'", shown(now().text));
      default:
        return fmt::format("`{}`", shown(now().text));
    }
  }
  void want_operator(std::string_view text) {
    if (!skip_operator(text)) fail(fmt::format("want `{}`, found {}", text, found()));
  }
  void want_word(std::string_view text) {
    if (!skip_word(text)) fail(fmt::format("want `{}`, found {}", text, found()));
  }
  std::string want_name() {
    if (now().lex != Lex::kName) fail(fmt::format("want a name, found {}", found()));
    return next().text;
  }
  void want_end(Lex lex) {
    if (now().lex != lex)
      fail(fmt::format("want {} here, found {}", lex == Lex::kBlockEnd ? "%}" : "}}", found()));
    next();
  }

  struct Nested {
    explicit Nested(Parser& parser) : parser(parser) {
      if (++parser.nesting_ > kMaxNesting)
        parser.fail(fmt::format("is nested deeper than {}", kMaxNesting));
    }
    ~Nested() { --parser.nesting_; }
    Parser& parser;
  };

  ExpressionPtr node(Op op, std::string name = "") const {
    auto out = std::make_unique<Expression>();
    out->op = op;
    out->line = now().line;
    out->name = std::move(name);
    return out;
  }
  void add(Expression& parent, ExpressionPtr child) const {
    if (child) grow(parent, *child);
    parent.items.push_back(std::move(child));
  }
  void grow(Expression& parent, const Expression& child) const {
    parent.depth = std::max(parent.depth, child.depth + 1);
    if (parent.depth > kMaxExpressionDepth)
      fail(fmt::format("an expression is nested deeper than {}", kMaxExpressionDepth));
  }
  template <class... Children>
  ExpressionPtr parent(Op op, std::string name, Children... children) const {
    ExpressionPtr out = node(op, std::move(name));
    (add(*out, std::move(children)), ...);
    return out;
  }
  ExpressionPtr literal(Value value) const {
    ExpressionPtr out = node(Op::kLiteral);
    out->value = std::move(value);
    return out;
  }

  // Expressions, loosest binding first.
  ExpressionPtr expression() {
    const Nested nested(*this);
    ExpressionPtr left = disjunction();
    while (skip_word("if")) {
      ExpressionPtr condition = disjunction();
      ExpressionPtr otherwise = skip_word("else") ? expression() : nullptr;
      left = parent(Op::kIf, "", std::move(condition), std::move(left), std::move(otherwise));
    }
    return left;
  }

  /// A tuple without brackets: `a, b`. `whole`: an `if` belongs to it.
  ExpressionPtr expressions(bool whole) {
    const auto one = [&] { return whole ? expression() : disjunction(); };
    ExpressionPtr first = one();
    if (!is_operator(",")) return first;
    ExpressionPtr tuple = parent(Op::kTuple, "", std::move(first));
    while (skip_operator(",")) {
      if (now().lex == Lex::kBlockEnd || now().lex == Lex::kOutputEnd || is_operator(")")) break;
      add(*tuple, one());
    }
    return tuple;
  }

  ExpressionPtr disjunction() {
    ExpressionPtr left = conjunction();
    while (skip_word("or")) left = parent(Op::kOr, "", std::move(left), conjunction());
    return left;
  }

  ExpressionPtr conjunction() {
    ExpressionPtr left = negation();
    while (skip_word("and")) left = parent(Op::kAnd, "", std::move(left), negation());
    return left;
  }

  ExpressionPtr negation() {
    if (!is_word("not")) return comparison();
    const Nested nested(*this);
    next();
    return parent(Op::kNot, "", negation());
  }

  ExpressionPtr comparison() {
    ExpressionPtr left = sum(), out;
    for (;;) {
      std::string name;
      for (const char* each : {"==", "!=", "<=", ">=", "<", ">"})
        if (name.empty() && skip_operator(each)) name = each;
      if (name.empty() && skip_word("in")) name = "in";
      if (name.empty() && is_word("not") && ahead().lex == Lex::kName && ahead().text == "in") {
        next();
        next();
        name = "not in";
      }
      if (name.empty()) return out ? std::move(out) : std::move(left);
      if (!out) out = parent(Op::kCompare, "", std::move(left));
      out->names.push_back(name);
      add(*out, sum());
    }
  }

  ExpressionPtr binary(std::initializer_list<const char*> operators,
                       ExpressionPtr (Parser::*inner)()) {
    ExpressionPtr left = (this->*inner)();
    for (bool more = true; more;) {
      more = false;
      for (const char* name : operators)
        if (skip_operator(name)) {
          left = parent(Op::kBinary, name, std::move(left), (this->*inner)());
          more = true;
          break;
        }
    }
    return left;
  }
  ExpressionPtr sum() { return binary({"+", "-"}, &Parser::concatenation); }
  ExpressionPtr concatenation() { return binary({"~"}, &Parser::product); }
  ExpressionPtr product() { return binary({"*", "//", "/", "%"}, &Parser::power); }
  ExpressionPtr power() { return binary({"**"}, &Parser::signed_filtered); }
  ExpressionPtr signed_filtered() { return signed_term(true); }

  ExpressionPtr signed_term(bool with_filter) {
    const Nested nested(*this);
    ExpressionPtr out;
    if (skip_operator("-"))
      out = parent(Op::kNegate, "", signed_term(false));
    else if (skip_operator("+"))
      out = parent(Op::kPlus, "", signed_term(false));
    else
      out = primary();
    out = postfix(std::move(out));
    return with_filter ? filters(std::move(out)) : std::move(out);
  }

  ExpressionPtr primary() {
    const Token token = now();
    switch (token.lex) {
      case Lex::kName: {
        next();
        const std::string& name = token.text;
        if (name == "true" || name == "True") return literal(true);
        if (name == "false" || name == "False") return literal(false);
        if (name == "none" || name == "None") return literal(None{});
        for (const char* word : {"and", "or", "not", "in", "is", "if", "else", "elif", "for"})
          if (name == word) fail(fmt::format("`{}` stands where a value should", name));
        return node(Op::kName, name);
      }
      case Lex::kString: {
        std::string text;
        while (now().lex == Lex::kString) text += next().text;
        return literal(std::move(text));
      }
      case Lex::kInteger: {
        int64_t value = 0;
        const char* end = token.text.data() + token.text.size();
        if (std::from_chars(token.text.data(), end, value).ec != std::errc())
          fail(fmt::format("the integer {} has more than 64 bits", shown(token.text)));
        next();
        return literal(value);
      }
      case Lex::kFloat: {
        double value = 0;
        std::from_chars(token.text.data(), token.text.data() + token.text.size(), value);
        next();
        return literal(value);
      }
      default:
        break;
    }
    if (skip_operator("(")) return bracketed();
    if (skip_operator("[")) return list();
    if (skip_operator("{")) return dict();
    fail(fmt::format("want a value, found {}", found()));
  }

  ExpressionPtr bracketed() {
    ExpressionPtr out = skip_operator(")") ? node(Op::kTuple) : nullptr;
    if (out) return out;
    out = expressions(true);
    want_operator(")");
    return out;
  }

  ExpressionPtr list() {
    ExpressionPtr out = node(Op::kList);
    while (!skip_operator("]")) {
      if (!out->items.empty()) want_operator(",");
      if (skip_operator("]")) break;
      add(*out, expression());
    }
    return out;
  }

  ExpressionPtr dict() {
    ExpressionPtr out = node(Op::kDict);
    while (!skip_operator("}")) {
      if (!out->items.empty()) want_operator(",");
      if (skip_operator("}")) break;
      add(*out, expression());
      want_operator(":");
      add(*out, expression());
    }
    return out;
  }

  ExpressionPtr postfix(ExpressionPtr out) {
    for (;;) {
      if (skip_operator(".")) {
        if (now().lex == Lex::kInteger) {
          out = parent(Op::kItem, "", std::move(out), primary());
        } else {
          out = parent(Op::kAttribute, want_name(), std::move(out));
        }
      } else if (skip_operator("[")) {
        out = subscript(std::move(out));
      } else if (is_operator("(")) {
        out = parent(Op::kCall, "", std::move(out));
        arguments(*out);
      } else {
        return out;
      }
    }
  }

  ExpressionPtr subscript(ExpressionPtr base) {
    ExpressionPtr parts[3];
    int colons = 0;
    if (!is_operator(":")) parts[0] = expression();
    while (colons < 2 && skip_operator(":")) {
      ++colons;
      if (!is_operator(":") && !is_operator("]")) parts[colons] = expression();
    }
    if (is_operator(",")) fail("an item by several keys is not known");
    want_operator("]");
    if (colons == 0) return parent(Op::kItem, "", std::move(base), std::move(parts[0]));
    return parent(Op::kSlice,
                  "",
                  std::move(base),
                  std::move(parts[0]),
                  std::move(parts[1]),
                  std::move(parts[2]));
  }

  /// (a, b, c=d) after `call`'s first item.
  void arguments(Expression& call) {
    want_operator("(");
    for (bool first = true; !skip_operator(")"); first = false) {
      if (!first) want_operator(",");
      if (skip_operator(")")) return;
      if (is_operator("*") || is_operator("**")) fail("arguments by * and ** are not known");
      if (now().lex == Lex::kName && ahead().lex == Lex::kOperator && ahead().text == "=") {
        std::string name = next().text;
        next();
        ExpressionPtr value = expression();
        grow(call, *value);
        for (const auto& [other, unused] : call.named)
          if (other == name) fail(fmt::format("the argument `{}` is given twice", shown(name)));
        call.named.emplace_back(std::move(name), std::move(value));
        continue;
      }
      if (!call.named.empty()) fail("an argument without a name follows one with a name");
      add(call, expression());
    }
  }

  ExpressionPtr filters(ExpressionPtr out) {
    for (;;) {
      if (is_operator("|"))
        out = filter(std::move(out));
      else if (skip_word("is"))
        out = test(std::move(out));
      else if (is_operator("("))
        out = postfix(std::move(out));
      else
        return out;
    }
  }

  ExpressionPtr filter(ExpressionPtr base) {
    want_operator("|");
    const std::string name = want_name();
    if (!is_filter(name)) fail(fmt::format("the filter `{}` is not known", shown(name)));
    ExpressionPtr out = parent(Op::kFilter, name, std::move(base));
    if (is_operator("(")) arguments(*out);
    return out;
  }

  ExpressionPtr test(ExpressionPtr base) {
    const bool negated = skip_word("not");
    const std::string name = want_name();
    if (!is_test(name)) fail(fmt::format("the test `{}` is not known", shown(name)));
    ExpressionPtr out = parent(Op::kTest, name, std::move(base));
    const Lex lex = now().lex;
    const bool word = lex == Lex::kName && !is_word("else") && !is_word("or") && !is_word("and") &&
                      !is_word("if") && !is_word("in") && !is_word("not");
    if (is_word("is")) fail("tests cannot be chained with `is`");
    if (is_operator("(")) {
      arguments(*out);
      if (!out->named.empty()) fail(fmt::format("the test `{}` has no named arguments", name));
    } else if (word || lex == Lex::kString || lex == Lex::kInteger || lex == Lex::kFloat ||
               is_operator("[") || is_operator("{")) {
      add(*out, postfix(primary()));
    }
    return negated ? parent(Op::kNot, "", std::move(out)) : std::move(out);
  }

  // Statements.
  std::unique_ptr<Statement> statement(Act act) const {
    auto out = std::make_unique<Statement>();
    out->act = act;
    out->line = now().line;
    return out;
  }

  /// Statements up to {% one of `ends`, whose name is the current token then.
  Block block(std::initializer_list<const char*> ends) {
    const Nested nested(*this);
    Block out;
    const int begin = now().line;
    for (;;) {
      if (now().lex == Lex::kEnd) {
        if (ends.size() == 0) return out;
        fail(fmt::format("the block of line {} has no {{% {} %}}", begin, *(ends.end() - 1)));
      }
      if (now().lex == Lex::kText) {
        out.push_back(statement(Act::kText));
        out.back()->text = next().text;
      } else if (now().lex == Lex::kOutputBegin) {
        next();
        out.push_back(statement(Act::kOutput));
        out.back()->expression = expressions(true);
        want_end(Lex::kOutputEnd);
      } else {
        next();  // {%
        for (const char* end : ends)
          if (is_word(end)) return out;
        out.push_back(tag());
      }
    }
  }

  std::unique_ptr<Statement> tag() {
    if (now().lex != Lex::kName) fail(fmt::format("want a tag's name, found {}", found()));
    if (is_word("if")) return condition();
    if (is_word("for")) return loop();
    if (is_word("set")) return assignment();
    if (is_word("macro")) return macro();
    if (is_word("generation")) return generation();
    if (is_word("break") || is_word("continue")) {
      if (loops_ == 0) fail(fmt::format("{} outside a loop", found()));
      auto out = statement(is_word("break") ? Act::kBreak : Act::kContinue);
      next();
      want_end(Lex::kBlockEnd);
      return out;
    }
    for (const char* known :
         {"elif", "else", "endif", "endfor", "endset", "endmacro", "endgeneration", "endraw"})
      if (is_word(known)) fail(fmt::format("{{% {} %}} ends nothing here", known));
    fail(fmt::format("the tag {{% {} %}} is not known", shown(now().text)));
  }

  std::unique_ptr<Statement> condition() {
    auto out = statement(Act::kIf);
    for (;;) {
      const bool otherwise = is_word("else");
      next();
      ExpressionPtr test = otherwise ? nullptr : expressions(false);
      want_end(Lex::kBlockEnd);
      Block body = otherwise ? block({"endif"}) : block({"elif", "else", "endif"});
      out->branches.emplace_back(std::move(test), std::move(body));
      if (is_word("endif")) break;
    }
    next();
    want_end(Lex::kBlockEnd);
    return out;
  }

  std::unique_ptr<Statement> loop() {
    auto out = statement(Act::kFor);
    next();
    const bool brackets = skip_operator("(");
    do {
      if (!out->names.empty() && (is_word("in") || is_operator(")"))) break;
      out->names.push_back(want_name());
      if (out->names.back() == "loop") fail("a loop's variable cannot be called `loop`");
    } while (skip_operator(","));
    if (brackets) want_operator(")");
    want_word("in");
    out->expression = expressions(false);
    if (skip_word("if")) out->condition = expression();
    if (is_word("recursive")) fail("`recursive` loops are not known");
    want_end(Lex::kBlockEnd);
    ++loops_;
    ++inner_;
    out->body = block({"else", "endfor"});
    --loops_;
    if (skip_word("else")) {
      want_end(Lex::kBlockEnd);
      out->otherwise = block({"endfor"});
    }
    --inner_;
    next();
    want_end(Lex::kBlockEnd);
    return out;
  }

  std::unique_ptr<Statement> assignment() {
    auto out = statement(Act::kSet);
    next();
    const bool brackets = skip_operator("(");
    do out->names.push_back(want_name());
    while (skip_operator(","));
    if (brackets) want_operator(")");
    if (out->names.size() == 1 && skip_operator(".")) out->attribute = want_name();
    for (const std::string& name : out->names)
      for (const char* fixed : {"true", "false", "none", "True", "False", "None", "loop"})
        if (name == fixed) fail(fmt::format("`{}` cannot be set", name));
    if (skip_operator("=")) {
      out->expression = expressions(true);
      want_end(Lex::kBlockEnd);
      return out;
    }
    if (out->names.size() > 1 || !out->attribute.empty() || now().lex != Lex::kBlockEnd)
      fail(fmt::format("want `=`, found {}", found()));
    next();
    out->act = Act::kSetBlock;
    ++inner_;
    out->body = block({"endset"});
    --inner_;
    next();
    want_end(Lex::kBlockEnd);
    return out;
  }

  std::unique_ptr<Statement> macro() {
    if (inner_ > 0) fail("a macro inside a loop or another block is not known; want it at the top");
    auto out = statement(Act::kMacro);
    next();
    out->macro = std::make_unique<MacroNode>();
    out->macro->name = want_name();
    want_operator("(");
    while (!skip_operator(")")) {
      if (!out->macro->parameters.empty()) want_operator(",");
      std::string name = want_name();
      ExpressionPtr fallback = skip_operator("=") ? expression() : nullptr;
      if (!fallback && !out->macro->parameters.empty() && out->macro->parameters.back().second)
        fail("a parameter without a default follows one with a default");
      out->macro->parameters.emplace_back(std::move(name), std::move(fallback));
    }
    want_end(Lex::kBlockEnd);
    const int loops = std::exchange(loops_, 0);
    ++inner_;
    out->macro->body = block({"endmacro"});
    --inner_;
    loops_ = loops;
    next();
    if (is_word(out->macro->name)) next();
    want_end(Lex::kBlockEnd);
    return out;
  }

  std::unique_ptr<Statement> generation() {
    auto out = statement(Act::kGeneration);
    has_generation_ = true;
    next();
    want_end(Lex::kBlockEnd);
    const int loops = std::exchange(loops_, 0);  // transformers makes a function of it
    ++inner_;
    out->body = block({"endgeneration"});
    --inner_;
    loops_ = loops;
    next();
    want_end(Lex::kBlockEnd);
    return out;
  }

  std::vector<Token> tokens_;
  const std::string& name_;
  size_t at_ = 0;
  int nesting_ = 0, loops_ = 0, inner_ = 0;
  bool has_generation_ = false;
};

}  // namespace

Template parse_template(std::string_view source, const std::string& name) {
  return Parser(source, name).run();
}

}  // namespace cohort::core::chat
