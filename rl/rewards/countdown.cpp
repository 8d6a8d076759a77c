// The countdown rule. An own small parser, stricter than that of rl/rewards/math: only the given
// whole numbers, + - * / and round brackets, and it keeps account of the numbers used.
#include <algorithm>
#include <cctype>
#include <optional>

#include "rl/rewards/builtin.h"
#include "rl/rewards/math/rational.h"
#include "rl/rewards/options.h"
#include "rl/rewards/tagged.h"

namespace cohort::rl {
namespace {

using math::Rational;

constexpr size_t kMaxBytes = 400;
constexpr int kMaxNesting = 50;

/// Thrown where the text is no countdown expression.
struct NoExpression {};

class CountdownExpression {
 public:
  explicit CountdownExpression(std::string_view text) : text_(text) {}

  Rational value() {
    const Rational result = sum();
    skip_spaces();
    if (place_ != text_.size()) throw NoExpression{};
    return result;
  }

  std::vector<int64_t> used;  // in the order written

 private:
  void skip_spaces() {
    while (place_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[place_])))
      ++place_;
  }

  bool accept(char sign) {
    skip_spaces();
    if (place_ >= text_.size() || text_[place_] != sign) return false;
    ++place_;
    return true;
  }

  Rational sum() {
    Rational result = product();
    while (true) {
      if (accept('+'))
        result = add(result, product(), work_);
      else if (accept('-'))
        result = add(result, product().negated(), work_);
      else
        return result;
    }
  }

  Rational product() {
    Rational result = factor();
    while (true) {
      if (accept('*'))
        result = multiply(result, factor(), work_);
      else if (accept('/'))
        result = multiply(result, inverse(factor(), work_), work_);
      else
        return result;
    }
  }

  Rational factor() {
    if (++nesting_ > kMaxNesting) throw NoExpression{};
    Rational result;
    if (accept('-')) {
      result = factor().negated();
    } else if (accept('(')) {
      result = sum();
      if (!accept(')')) throw NoExpression{};
    } else {
      result = number();
    }
    --nesting_;
    return result;
  }

  Rational number() {
    skip_spaces();
    int64_t value = 0;
    const size_t start = place_;
    for (; place_ < text_.size() && std::isdigit(static_cast<unsigned char>(text_[place_]));
         ++place_)
      if (place_ - start < 17) value = value * 10 + (text_[place_] - '0');
    if (place_ == start || place_ - start >= 17) throw NoExpression{};
    used.push_back(value);
    return Rational(value);
  }

  std::string_view text_;
  size_t place_ = 0;
  int nesting_ = 0;
  math::Work work_;
};

/// × ÷ − and their LaTeX forms as * / -.
std::string plain_signs(std::string_view text) {
  struct Sign {
    std::string_view from, to;
  };
  constexpr Sign kSigns[] = {{"×", "*"},
                             {"÷", "/"},
                             {"−", "-"},
                             {"·", "*"},
                             {"\\times", "*"},
                             {"\\div", "/"},
                             {"\\cdot", "*"}};
  std::string result;
  for (size_t i = 0; i < text.size();) {
    const auto found = std::find_if(std::begin(kSigns), std::end(kSigns), [&](const Sign& sign) {
      return text.substr(i, sign.from.size()) == sign.from;
    });
    result += found == std::end(kSigns) ? text.substr(i, 1) : found->to;
    i += found == std::end(kSigns) ? 1 : found->from.size();
  }
  return result;
}

class CountdownReward final : public Reward {
 public:
  explicit CountdownReward(const nlohmann::json& json) {
    Options options("reward countdown", json);
    answer_tag_ = options.get("answer_tag", std::string("answer"));
    use_ = options.get("use", std::string("all"));
    partial_ = options.within("partial", options.get("partial", 0.0), 0.0, 1.0);
    options.finish();
    COHORT_CHECK_INPUT(
        use_ == "all" || use_ == "any", "reward countdown: use is {}; it must be all or any", use_);
  }

  std::string name() const override { return "countdown"; }

  std::vector<double> score(std::span<const Completion> batch) override {
    std::vector<double> values;
    for (const Completion& completion : batch) values.push_back(scored(completion));
    return values;
  }

 private:
  std::optional<std::string_view> expression_text(std::string_view text) const {
    if (!answer_tag_.empty()) return last_tagged(text, answer_tag_);
    text = trimmed(text);
    const size_t line = text.rfind('\n');
    return line == std::string_view::npos ? text : text.substr(line + 1);
  }

  double scored(const Completion& completion) const {
    const auto& problem = completion.problem;
    COHORT_CHECK_INPUT(problem.is_object() && problem.contains("numbers") &&
                           problem["numbers"].is_array() && problem.contains("target") &&
                           problem["target"].is_number_integer(),
                       "reward countdown needs a problem with numbers and a target; this one is {}",
                       problem.dump().substr(0, 200));
    std::vector<int64_t> given;
    for (const auto& number : problem["numbers"]) {
      COHORT_CHECK_INPUT(number.is_number_integer(),
                         "reward countdown: {} among the numbers is not whole",
                         number.dump());
      given.push_back(number.get<int64_t>());
    }
    const std::string use = problem.contains("use") && problem["use"].is_string()
                                ? problem["use"].get<std::string>()
                                : use_;
    const auto text = expression_text(completion.text);
    if (!text || text->size() > kMaxBytes) return 0;
    return value_of(plain_signs(*text), std::move(given), problem["target"], use == "all");
  }

  double value_of(std::string text, std::vector<int64_t> given, int64_t target, bool all) const {
    // "(1 + 2) * 3 = 9" says the target again.
    const size_t equals = text.find('=');
    if (equals != std::string::npos) {
      if (trimmed(std::string_view(text).substr(equals + 1)) != std::to_string(target)) return 0;
      text.resize(equals);
    }
    try {
      CountdownExpression expression(text);
      const Rational value = expression.value();
      std::sort(given.begin(), given.end());
      std::sort(expression.used.begin(), expression.used.end());
      const bool allowed =
          all ? given == expression.used
              : std::includes(
                    given.begin(), given.end(), expression.used.begin(), expression.used.end());
      if (!allowed) return 0;
      return value == Rational(target) ? 1.0 : partial_;
    } catch (NoExpression) {
    } catch (math::TooBig) {
    } catch (math::Undefined) {  // division by zero
    } catch (math::OutOfWork) {
    }
    return 0;
  }

  std::string answer_tag_, use_;
  double partial_;
};

}  // namespace

std::unique_ptr<Reward> make_countdown_reward(const nlohmann::json& options) {
  return std::make_unique<CountdownReward>(options);
}

}  // namespace cohort::rl
