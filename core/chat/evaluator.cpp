#include "core/chat/evaluator.h"

#include <algorithm>
#include <ctime>
#include <optional>

#include "core/base/error.h"
#include "core/chat/lexer.h"
#include "core/chat/text.h"

namespace cohort::core::chat {
namespace {

constexpr int kMaxRunDepth = 400;
constexpr size_t kMaxOutputBytes = size_t{64} << 20;
constexpr int64_t kMaxRange = 100000;  // as Jinja's sandbox has it

struct Loop {
  const Values& items;
  size_t idx;
};

/// Variables of one block that has its own.
struct Scope {
  std::vector<std::pair<std::string, Value>> variables;
  const Loop* loop = nullptr;
  bool sees_globals_only = false;  // a macro's
};

enum class Flow { kNext, kBreak, kContinue };

class Evaluator {
 public:
  Evaluator(std::vector<std::pair<std::string, Value>> variables, Work& work) : work_(work) {
    scopes_.push_back({std::move(variables), nullptr, false});
  }
  ~Evaluator() {  // spaces may hold each other
    for (const auto& space : spaces_) space->entries.clear();
  }

  void run(const Block& block) { execute(block); }
  int line() const { return line_; }
  Rendered take() { return {std::move(out_), std::move(generated_), hidden_generation_}; }

 private:
  struct Deeper {
    explicit Deeper(Evaluator& owner) : owner(owner) {
      if (++owner.depth_ > kMaxRunDepth) throw Fault("calls itself too deeply");
      owner.work_.spend(16);
    }
    ~Deeper() { --owner.depth_; }
    Evaluator& owner;
  };

  // Variables.
  const Value* variable(const std::string& name) const {
    for (size_t i = scopes_.size(); i-- > 0;) {
      for (const auto& entry : scopes_[i].variables)
        if (entry.first == name) return &entry.second;
      if (scopes_[i].sees_globals_only) i = 1;
    }
    return nullptr;
  }
  const Loop* loop() const {
    for (size_t i = scopes_.size(); i-- > 0;) {
      if (scopes_[i].loop) return scopes_[i].loop;
      if (scopes_[i].sees_globals_only) return nullptr;
    }
    return nullptr;
  }
  void set(const std::string& name, Value value) {
    auto& variables = scopes_.back().variables;
    for (auto& entry : variables)
      if (entry.first == name) {
        entry.second = std::move(value);
        return;
      }
    // Each use of a name looks through them.
    if (variables.size() >= 1000) throw Fault("more than 1000 names are set in one scope");
    work_.spend(64 + variables.size());
    variables.emplace_back(name, std::move(value));
  }
  void unpack(const std::vector<std::string>& names, const Value& value) {
    if (names.size() == 1) return set(names[0], value);
    Values items = walk(value, work_);
    if (items.size() != names.size())
      throw Fault(fmt::format("{} values for {} names", items.size(), names.size()));
    for (size_t i = 0; i < names.size(); ++i) set(names[i], std::move(items[i]));
  }

  // Statements.
  void write(std::string_view text) {
    work_.spend(text.size());
    if (out_.size() + text.size() > kMaxOutputBytes)
      throw Fault(fmt::format("writes more than {} bytes", kMaxOutputBytes));
    out_ += text;
  }

  Flow execute(const Block& block) {
    for (const auto& statement : block)
      if (const Flow flow = execute(*statement); flow != Flow::kNext) return flow;
    return Flow::kNext;
  }

  Flow execute(const Statement& statement) {
    const Deeper deeper(*this);
    line_ = statement.line;
    switch (statement.act) {
      case Act::kText:
        write(statement.text);
        break;
      case Act::kOutput:
        write(str(evaluate(*statement.expression), work_));
        break;
      case Act::kIf:
        for (const auto& [condition, body] : statement.branches)
          if (!condition || evaluate(*condition).truth()) return execute(body);
        break;
      case Act::kFor:
        return for_each(statement);
      case Act::kSet:
        assign(statement);
        break;
      case Act::kSetBlock:
        set(statement.names[0], Value(captured(statement.body)));
        break;
      case Act::kMacro:
        set(statement.macro->name, Value(statement.macro.get()));
        break;
      case Act::kGeneration:
        generation(statement);
        break;
      case Act::kBreak:
        return Flow::kBreak;
      case Act::kContinue:
        return Flow::kContinue;
    }
    return Flow::kNext;
  }

  void assign(const Statement& statement) {
    Value value = evaluate(*statement.expression);
    if (statement.attribute.empty()) return unpack(statement.names, value);
    const Value* target = variable(statement.names[0]);
    Namespace* space = target ? target->space() : nullptr;
    if (!space)
      throw Fault(fmt::format("`{}` is no namespace(), whose attributes alone can be set",
                              shown(statement.names[0])));
    put(*space, statement.attribute, std::move(value));
  }

  void put(Namespace& space, const std::string& name, Value value) {
    if (name[0] == '_')
      throw Fault(fmt::format("the namespace attribute `{}` begins with _", shown(name)));
    work_.spend(space.entries.size());
    for (auto& entry : space.entries)
      if (entry.first == name) {
        entry.second = std::move(value);
        return;
      }
    space.entries.emplace_back(name, std::move(value));
  }

  Flow for_each(const Statement& statement) {
    Values items = walk(evaluate(*statement.expression), work_);
    if (statement.condition) {
      Values kept;
      for (Value& item : items) {
        scopes_.push_back({});
        unpack(statement.names, item);
        if (evaluate(*statement.condition).truth()) kept.push_back(std::move(item));
        scopes_.pop_back();
      }
      items = std::move(kept);
    }
    Loop loop{items, 0};
    for (; loop.idx < items.size(); ++loop.idx) {
      scopes_.push_back({{}, &loop, false});
      unpack(statement.names, items[loop.idx]);
      const Flow flow = execute(statement.body);
      scopes_.pop_back();
      if (flow == Flow::kBreak) break;
    }
    if (!items.empty()) return Flow::kNext;
    scopes_.push_back({});
    const Flow flow = execute(statement.otherwise);
    scopes_.pop_back();
    return flow;
  }

  /// What a block writes.
  std::string captured(const Block& body) {
    std::string outer = std::exchange(out_, {});
    ++captures_;
    scopes_.push_back({});
    execute(body);
    scopes_.pop_back();
    --captures_;
    return std::exchange(out_, std::move(outer));
  }

  void generation(const Statement& statement) {
    const size_t begin = out_.size();
    scopes_.push_back({});
    execute(statement.body);
    scopes_.pop_back();
    if (captures_ > 0)
      hidden_generation_ = true;
    else
      generated_.emplace_back(begin, out_.size());
  }

  // Expressions.
  Value evaluate(const Expression& e) {
    const Deeper deeper(*this);
    line_ = e.line;
    if (e.op == Op::kTest && is_loop(*e.items[0]) && e.name.ends_with("defined"))
      return e.name == "defined";
    switch (e.op) {
      case Op::kLiteral:
        return e.value;
      case Op::kName:
        return named(e.name);
      case Op::kList:
        return Value::list(all(e, 0));
      case Op::kTuple:
        return Value::list(all(e, 0), ListKind::kTuple);
      case Op::kDict:
        return dict(e);
      case Op::kAttribute:
        return attribute(e);
      case Op::kItem: {
        const Value base = evaluate(*e.items[0]);
        return item_of(base, evaluate(*e.items[1]), work_);
      }
      case Op::kSlice: {
        const Values parts = all(e, 0);
        return slice_of(parts[0], parts[1], parts[2], parts[3], work_);
      }
      case Op::kCall:
        return call(e);
      case Op::kFilter: {
        const Value base = evaluate(*e.items[0]);
        return apply_filter(e.name, base, arguments(e), work_);
      }
      case Op::kTest: {
        const Value base = evaluate(*e.items[0]);
        return apply_test(e.name, base, all(e, 1), work_);
      }
      case Op::kNot:
        return !evaluate(*e.items[0]).truth();
      case Op::kNegate:
      case Op::kPlus: {
        const Value value = evaluate(*e.items[0]);
        if (!value.is_number()) throw Fault(fmt::format("a {} has no sign", value.type_name()));
        return apply_operator("*", Value(int64_t{e.op == Op::kPlus ? 1 : -1}), value, work_);
      }
      case Op::kAnd: {
        Value left = evaluate(*e.items[0]);
        return left.truth() ? evaluate(*e.items[1]) : left;
      }
      case Op::kOr: {
        Value left = evaluate(*e.items[0]);
        return left.truth() ? left : evaluate(*e.items[1]);
      }
      case Op::kIf:
        if (evaluate(*e.items[0]).truth()) return evaluate(*e.items[1]);
        return e.items[2] ? evaluate(*e.items[2]) : Value::undefined("an `if` without `else`");
      case Op::kBinary: {
        const Value left = evaluate(*e.items[0]);
        return apply_operator(e.name, left, evaluate(*e.items[1]), work_);
      }
      case Op::kCompare:
        return compare(e);
    }
    return {};
  }

  /// Items from `first` on; none for an absent one.
  Values all(const Expression& e, size_t first) {
    Values out;
    for (size_t i = first; i < e.items.size(); ++i)
      out.push_back(e.items[i] ? evaluate(*e.items[i]) : Value(None{}));
    work_.spend(32 * out.size());
    return out;
  }
  Arguments arguments(const Expression& e) {
    Arguments out{all(e, 1), {}};
    for (const auto& [name, value] : e.named) out.named.emplace_back(name, evaluate(*value));
    return out;
  }

  Value named(const std::string& name) {
    if (const Value* found = variable(name)) return *found;
    if (name == "loop" && loop()) throw Fault("`loop` stands alone; only its attributes are known");
    for (const char* function : {"range", "namespace", "raise_exception", "strftime_now", "dict"})
      if (name == function) return Value::function(name);
    for (const char* function :
         {"lipsum", "cycler", "joiner", "caller", "varargs", "kwargs", "self"})
      if (name == function) throw Fault(fmt::format("`{}` is not known", name));
    return Value::undefined(name);
  }

  Value dict(const Expression& e) {
    std::vector<std::pair<std::string, Value>> entries;
    for (size_t i = 0; i < e.items.size(); i += 2) {
      std::string key = text_of(evaluate(*e.items[i]), "a dict's key");
      Value value = evaluate(*e.items[i + 1]);
      work_.spend(32 + entries.size());
      const auto same = std::find_if(
          entries.begin(), entries.end(), [&](const auto& entry) { return entry.first == key; });
      if (same != entries.end())
        same->second = std::move(value);
      else
        entries.emplace_back(std::move(key), std::move(value));
    }
    return Value::dict(std::move(entries));
  }

  bool is_loop(const Expression& e) const {
    return e.op == Op::kName && e.name == "loop" && !variable("loop") && loop();
  }

  Value attribute(const Expression& e) {
    if (is_loop(*e.items[0])) return loop_attribute(*loop(), e.name);
    const Value base = evaluate(*e.items[0]);
    if (is_method(base, e.name)) return Value::function(e.name);
    return attribute_of(base, e.name, work_);
  }

  Value loop_attribute(const Loop& at, const std::string& name) const {
    const auto idx = static_cast<int64_t>(at.idx), size = static_cast<int64_t>(at.items.size());
    if (name == "index") return idx + 1;
    if (name == "index0") return idx;
    if (name == "revindex") return size - idx;
    if (name == "revindex0") return size - idx - 1;
    if (name == "first") return idx == 0;
    if (name == "last") return idx == size - 1;
    if (name == "length") return size;
    if (name == "previtem")
      return idx > 0 ? at.items[at.idx - 1] : Value::undefined("loop.previtem");
    if (name == "nextitem")
      return idx + 1 < size ? at.items[at.idx + 1] : Value::undefined("loop.nextitem");
    throw Fault(fmt::format("`loop.{}` is not known", shown(name)));
  }

  Value compare(const Expression& e) {
    Value left = evaluate(*e.items[0]);
    for (size_t i = 0; i < e.names.size(); ++i) {
      Value right = evaluate(*e.items[i + 1]);
      const std::string& name = e.names[i];
      bool holds = false;
      if (name == "==")
        holds = equal(left, right, work_);
      else if (name == "!=")
        holds = !equal(left, right, work_);
      else if (name == "in")
        holds = contains(right, left, work_);
      else if (name == "not in")
        holds = !contains(right, left, work_);
      else {
        const int sign = order(left, right, work_);
        holds = name == "<"    ? sign < 0
                : name == ">"  ? sign > 0
                : name == "<=" ? sign <= 0
                               : sign >= 0;
      }
      if (!holds) return false;
      left = std::move(right);
    }
    return true;
  }

  Value call(const Expression& e) {
    const Expression& callee = *e.items[0];
    if (callee.op == Op::kAttribute) {
      if (is_loop(*callee.items[0])) return loop_call(callee.name, arguments(e));
      const Value base = evaluate(*callee.items[0]);
      if (is_method(base, callee.name) || !base.space())
        return call_method(base, callee.name, arguments(e), work_);
      return call_value(attribute_of(base, callee.name, work_), arguments(e));
    }
    if (is_loop(callee)) throw Fault("`loop(...)`: recursive loops are not known");
    const Value function = evaluate(callee);
    return call_value(function, arguments(e));
  }

  Value loop_call(const std::string& name, const Arguments& given) {
    if (name != "cycle" || given.positional.empty() || !given.named.empty())
      throw Fault(fmt::format("`loop.{}(...)` is not known", shown(name)));
    return given.positional[loop()->idx % given.positional.size()];
  }

  Value call_value(const Value& function, const Arguments& given) {
    if (const MacroNode* macro = function.macro()) return call_macro(*macro, given);
    const Function* builtin = function.as<Function>();
    if (function.is_undefined())
      throw Fault(
          fmt::format("`{}` is called and not defined", shown(*function.as<Undefined>()->name)));
    if (!builtin) throw Fault(fmt::format("a {} is called", function.type_name()));
    const std::string& name = *builtin->name;
    if (name == "range") return range(given);
    if (name == "namespace") return make_namespace(given);
    if (name == "dict") {
      if (!given.positional.empty()) throw Fault("dict() wants named values alone");
      return Value::dict(given.named);
    }
    if (name == "raise_exception") {
      given.check("raise_exception", 1, {"message"});
      const Value* message = given.find(0, "message");
      throw Fault(
          fmt::format("the template refuses: {}", shown(message ? str(*message, work_) : "")));
    }
    if (name == "strftime_now") return now(given);
    throw Fault(fmt::format("the method `{}` is used as a value", shown(name)));
  }

  Value range(const Arguments& given) {
    given.check("range", 3, {});
    if (given.positional.empty()) throw Fault("range() wants 1 to 3 integers");
    int64_t limits[3] = {0, 0, 1};
    for (size_t i = 0; i < given.positional.size(); ++i)
      limits[i] = integer_of(given.positional[i], "range()");
    if (given.positional.size() == 1) std::swap(limits[0], limits[1]);
    const auto [from, to, step] = limits;
    if (step == 0) throw Fault("range() wants a step that is not 0");
    const __int128 span = static_cast<__int128>(to) - from;
    const __int128 count =
        (span > 0) == (step > 0) && span != 0 ? (span + step - (step > 0 ? 1 : -1)) / step : 0;
    if (count > kMaxRange) throw Fault(fmt::format("range() of more than {}", kMaxRange));
    work_.spend(static_cast<size_t>(count) * 32);
    Values items;
    for (int64_t i = 0; i < static_cast<int64_t>(count); ++i) items.emplace_back(from + i * step);
    return Value::list(std::move(items), ListKind::kView);
  }

  Value make_namespace(const Arguments& given) {
    auto space = std::make_shared<Namespace>();
    work_.spend(128);
    spaces_.push_back(space);
    if (given.positional.size() > 1 ||
        (given.positional.size() == 1 && !given.positional[0].dict()))
      throw Fault("namespace() wants a dict and named values");
    if (!given.positional.empty())
      for (const auto& [name, value] : given.positional[0].dict()->entries)
        if (!name.empty()) put(*space, name, value);
    for (const auto& [name, value] : given.named) put(*space, name, value);
    return space;
  }

  Value now(const Arguments& given) {
    given.check("strftime_now", 1, {"format"});
    const Value* format = given.find(0, "format");
    if (!format) throw Fault("strftime_now() wants a format");
    const std::string& text = text_of(*format, "strftime_now()");
    if (text.empty()) return "";
    const std::time_t time = std::time(nullptr);
    std::tm local{};
    localtime_r(&time, &local);
    char out[1024];
    const size_t size =
        text.size() < 256 ? std::strftime(out, sizeof out, text.c_str(), &local) : 0;
    if (size == 0)
      throw Fault(fmt::format("strftime_now('{}'): want a format of a date", shown(text)));
    return std::string(out, size);
  }

  Value call_macro(const MacroNode& macro, const Arguments& given) {
    const auto& parameters = macro.parameters;
    if (given.positional.size() > parameters.size())
      throw Fault(fmt::format("macro {}: {} arguments for {}",
                              shown(macro.name),
                              given.positional.size(),
                              parameters.size()));
    for (const auto& [name, value] : given.named) {
      const auto found =
          std::find_if(parameters.begin(), parameters.end(), [&name = name](const auto& one) {
            return one.first == name;
          });
      if (found == parameters.end() ||
          static_cast<size_t>(found - parameters.begin()) < given.positional.size())
        throw Fault(fmt::format(
            "macro {}: the argument `{}` has no place", shown(macro.name), shown(name)));
    }
    std::string outer = std::exchange(out_, {});
    ++captures_;
    scopes_.push_back({{}, nullptr, true});
    for (size_t i = 0; i < parameters.size(); ++i) {
      const Value* value = given.find(i, parameters[i].first.c_str());
      set(parameters[i].first,
          value                  ? *value
          : parameters[i].second ? evaluate(*parameters[i].second)
                                 : Value::undefined(parameters[i].first));
    }
    execute(macro.body);
    scopes_.pop_back();
    --captures_;
    return Value(std::exchange(out_, std::move(outer)));
  }

  Work& work_;
  std::vector<Scope> scopes_;
  std::vector<std::shared_ptr<Namespace>> spaces_;
  std::string out_;
  std::vector<std::pair<size_t, size_t>> generated_;
  int depth_ = 0, line_ = 1, captures_ = 0;
  bool hidden_generation_ = false;
};

}  // namespace

const Value* Arguments::find(size_t idx, const char* name) const {
  if (idx < positional.size()) return &positional[idx];
  for (const auto& entry : named)
    if (entry.first == name) return &entry.second;
  return nullptr;
}

void Arguments::check(const char* what,
                      size_t most,
                      std::initializer_list<const char*> names) const {
  if (positional.size() > most)
    throw Fault(
        fmt::format("{} takes {} arguments at most, found {}", what, most, positional.size()));
  for (const auto& entry : named)
    if (std::none_of(
            names.begin(), names.end(), [&](const char* name) { return entry.first == name; }))
      throw Fault(fmt::format("{} has no argument `{}` that is known", what, shown(entry.first)));
}

Rendered run_template(const Template& parsed,
                      std::vector<std::pair<std::string, Value>> variables,
                      const std::string& name,
                      Work& work) {
  Evaluator evaluator(std::move(variables), work);
  try {
    evaluator.run(parsed.body);
  } catch (const Fault& fault) {
    throw InputError(fmt::format("{}:{}: {}", name, evaluator.line(), fault.what()));
  }
  return evaluator.take();
}

}  // namespace cohort::core::chat
