#include <algorithm>

#include "rl/tasks/generated.h"

namespace cohort::rl {
namespace {

class CountdownTask final : public GeneratedTask {
 public:
  CountdownTask(const TaskConfig& config, Options options)
      : GeneratedTask(config, options, "{question}", {"question", "numbers", "target"}) {
    const auto number = [&](const char* key, int64_t otherwise, int64_t low, int64_t high) {
      return options.within<int64_t>(key, options.get<int64_t>(key, otherwise), low, high);
    };
    count_ = number("count", 3, 2, 8);
    min_ = number("min", 1, 1, 1'000'000);
    max_ = number("max", 99, min_, 1'000'000);
    target_min_ = number("target_min", 1, 1, 1'000'000'000);
    target_max_ = number("target_max", 999, target_min_, 1'000'000'000);
    use_ = options.get("use", std::string("all"));
    operations_ = operations_of(options, {"+", "-", "*", "/"});
    options.finish();
    COHORT_CHECK_INPUT(
        use_ == "all" || use_ == "any", "task countdown: use is {}; it must be all or any", use_);
    check_ranges();
  }

  std::string name() const override { return "countdown"; }

 protected:
  std::optional<Sketch> sketched(Draw& draw) const override {
    std::vector<int64_t> numbers;
    for (int64_t i = 0; i < count_; ++i) numbers.push_back(draw.between(min_, max_));
    const std::optional<int64_t> target = reached(numbers, draw);
    if (!target || *target < target_min_ || *target > target_max_) return std::nullopt;
    Sketch sketch;
    std::string listed;
    for (int64_t number : numbers) listed += (listed.empty() ? "" : ", ") + std::to_string(number);
    sketch.data = {{"numbers", numbers},
                   {"target", *target},
                   {"use", use_},
                   {"question",
                    fmt::format("Using the numbers {}, {}, write an expression that equals {}",
                                listed,
                                use_ == "all" ? "each exactly once" : "each at most once",
                                *target)}};
    sketch.category = fmt::format("{} numbers", count_);
    // The same numbers in another order are the same problem.
    std::sort(numbers.begin(), numbers.end());
    for (int64_t number : numbers) sketch.content += std::to_string(number) + " ";
    sketch.content += "-> " + std::to_string(*target);
    return sketch;
  }

 private:
  /// Joins two random values by a random operation until one is left: the target, reached with all
  /// of the numbers. Nothing where that would leave the whole numbers or grow beyond 10^12.
  std::optional<int64_t> reached(std::vector<int64_t> values, Draw& draw) const {
    while (values.size() > 1) {
      draw.shuffle(values);
      const int64_t b = values.back();
      values.pop_back();
      int64_t& a = values.back();
      switch (draw.one_of(operations_)) {
        case '+':
          a += b;
          break;
        case '-':
          a -= b;
          break;
        case '*':
          if (__builtin_mul_overflow(a, b, &a)) return std::nullopt;
          break;
        default:
          if (b == 0 || a % b != 0) return std::nullopt;
          a /= b;
      }
      constexpr int64_t kBound = 1'000'000'000'000;
      if (a > kBound || a < -kBound) return std::nullopt;
    }
    return values[0];
  }

  int64_t count_, min_, max_, target_min_, target_max_;
  std::string use_;
  std::vector<char> operations_;
};

}  // namespace

std::unique_ptr<Task> make_countdown_task(const TaskConfig& config) {
  return std::make_unique<CountdownTask>(config, Options("task countdown", config.options));
}

}  // namespace cohort::rl
