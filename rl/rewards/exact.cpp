#include <cctype>

#include "rl/rewards/builtin.h"
#include "rl/rewards/options.h"
#include "rl/rewards/tagged.h"

namespace cohort::rl {
namespace {

class ExactReward final : public Reward {
 public:
  explicit ExactReward(const nlohmann::json& json) {
    Options options("reward exact", json);
    answer_key_ = options.get("answer_key", std::string("answer"));
    answer_tag_ = options.get("answer_tag", std::string("answer"));
    ignore_case_ = options.get("ignore_case", true);
    options.finish();
  }

  std::string name() const override { return "exact"; }

  std::vector<double> score(std::span<const Completion> batch) override {
    std::vector<double> values;
    for (const Completion& completion : batch) {
      std::string_view text = completion.text;
      if (!answer_tag_.empty()) text = last_tagged(text, answer_tag_).value_or(text);
      const std::string gold = normalised(problem_text(completion.problem, answer_key_, name()));
      values.push_back(!gold.empty() && normalised(text) == gold);
    }
    return values;
  }

 private:
  std::string normalised(std::string_view text) const {
    std::string result;
    for (char c : trimmed(text)) {
      const unsigned char byte = static_cast<unsigned char>(c);
      if (std::isspace(byte)) {
        if (result.back() != ' ') result += ' ';
      } else {
        result += ignore_case_ && byte < 128 ? static_cast<char>(std::tolower(byte)) : c;
      }
    }
    return result;
  }

  std::string answer_key_, answer_tag_;
  bool ignore_case_;
};

}  // namespace

std::unique_ptr<Reward> make_exact_reward(const nlohmann::json& options) {
  return std::make_unique<ExactReward>(options);
}

}  // namespace cohort::rl
