#include "rl/rewards/builtin.h"
#include "rl/rewards/math/judge.h"
#include "rl/rewards/options.h"
#include "rl/rewards/tagged.h"

namespace cohort::rl {
namespace {

class MathAnswerReward final : public Reward {
 public:
  explicit MathAnswerReward(const nlohmann::json& json) {
    Options options("reward math_answer", json);
    answer_key_ = options.get("answer_key", std::string("answer"));
    answer_tag_ = options.get("answer_tag", std::string("answer"));
    options.finish();
  }

  std::string name() const override { return "math_answer"; }

  std::vector<double> score(std::span<const Completion> batch) override {
    std::vector<double> values;
    for (const Completion& completion : batch) {
      std::string_view text = completion.text;
      if (!answer_tag_.empty()) text = last_tagged(text, answer_tag_).value_or(text);
      const std::string gold = problem_text(completion.problem, answer_key_, name());
      values.push_back(math::judge(gold, text).equal);
    }
    return values;
  }

 private:
  std::string answer_key_, answer_tag_;
};

}  // namespace

std::unique_ptr<Reward> make_math_answer_reward(const nlohmann::json& options) {
  return std::make_unique<MathAnswerReward>(options);
}

}  // namespace cohort::rl
