#include <algorithm>

#include "rl/tasks/generated.h"

namespace cohort::rl {
namespace {

constexpr int64_t kMaxOperand = 1'000'000;

class ArithmeticTask final : public GeneratedTask {
 public:
  ArithmeticTask(const TaskConfig& config, Options options)
      : GeneratedTask(config, options, "{question} =", {"question"}) {
    min_ =
        options.within<int64_t>("min", options.get<int64_t>("min", 0), -kMaxOperand, kMaxOperand);
    max_ = options.within<int64_t>("max", options.get<int64_t>("max", 99), min_, kMaxOperand);
    terms_ = options.within<int64_t>("terms", options.get<int64_t>("terms", 2), 2, 6);
    negative_ = options.get("negative", true);
    operations_ = operations_of(options, {"+", "-", "*"});
    options.finish();
    check_ranges();
  }

  std::string name() const override { return "arithmetic"; }

 protected:
  std::optional<Sketch> sketched(Draw& draw) const override {
    std::vector<int64_t> operands{draw.between(min_, max_)};
    std::vector<char> signs;
    for (int64_t i = 1; i < terms_; ++i) {
      signs.push_back(draw.one_of(operations_));
      operands.push_back(draw.between(min_, max_));
      // Few random quotients are whole: make the dividend a multiple, where the range allows it.
      if (signs.back() == '/' && terms_ == 2 && operands[1] != 0) {
        const int64_t product = operands[0] * operands[1];
        if (product >= min_ && product <= max_) operands[0] = product;
      }
    }
    const std::optional<int64_t> result = value(operands, signs);
    if (!result || (!negative_ && *result < 0)) return std::nullopt;
    Sketch sketch;
    const std::string question = written(operands, signs);
    sketch.data = {{"question", question}, {"answer", std::to_string(*result)}};
    sketch.category = category(signs);
    // A sum or a product is the same problem in any order.
    const bool commutes = std::all_of(signs.begin(), signs.end(), [&](char sign) {
      return sign == signs[0] && (sign == '+' || sign == '*');
    });
    if (commutes) std::sort(operands.begin(), operands.end());
    sketch.content = written(operands, signs);
    return sketch;
  }

 private:
  static std::string written(const std::vector<int64_t>& operands, const std::vector<char>& signs) {
    std::string text;
    for (size_t i = 0; i < operands.size(); ++i) {
      if (i) text += std::string(" ") + signs[i - 1] + " ";
      text += i && operands[i] < 0 ? fmt::format("({})", operands[i]) : std::to_string(operands[i]);
    }
    return text;
  }

  /// By the usual precedence; nothing for a quotient that is not whole or a result beyond 2^53.
  static std::optional<int64_t> value(const std::vector<int64_t>& operands,
                                      const std::vector<char>& signs) {
    __int128 sum = 0, product = operands[0];
    for (size_t i = 0; i < signs.size(); ++i) {
      const __int128 next = operands[i + 1];
      if (signs[i] == '*') {
        product *= next;  // at most six operands below 2^20
      } else if (signs[i] == '/') {
        if (next == 0 || product % next != 0) return std::nullopt;
        product /= next;
      } else {
        sum += product;
        product = signs[i] == '+' ? next : -next;
      }
    }
    sum += product;
    constexpr __int128 kBound = __int128{1} << 53;
    if (sum > kBound || sum < -kBound) return std::nullopt;
    return static_cast<int64_t>(sum);
  }

  static std::string category(const std::vector<char>& signs) {
    if (std::any_of(signs.begin(), signs.end(), [&](char sign) { return sign != signs[0]; }))
      return "mixed";
    switch (signs[0]) {
      case '+':
        return "addition";
      case '-':
        return "subtraction";
      case '*':
        return "multiplication";
      default:
        return "division";
    }
  }

  int64_t min_, max_, terms_;
  bool negative_;
  std::vector<char> operations_;
};

}  // namespace

std::unique_ptr<Task> make_arithmetic_task(const TaskConfig& config) {
  return std::make_unique<ArithmeticTask>(config, Options("task arithmetic", config.options));
}

}  // namespace cohort::rl
