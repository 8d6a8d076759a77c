#include <vector>

#include "rl/rewards/builtin.h"
#include "rl/rewards/options.h"
#include "rl/rewards/tagged.h"

namespace cohort::rl {
namespace {

class FormatReward final : public Reward {
 public:
  explicit FormatReward(const nlohmann::json& json) {
    Options options("reward format", json);
    tags_ = options.get("tags", std::vector<std::string>{"think", "answer"});
    prompt_opens_ = options.get("prompt_opens", false);
    options.finish();
    COHORT_CHECK_INPUT(!tags_.empty(), "reward format: tags is empty; name at least one");
    for (size_t i = 0; i < tags_.size(); ++i) {
      COHORT_CHECK_INPUT(!tags_[i].empty() && tags_[i].find_first_of("<>/") == std::string::npos,
                         "reward format: \"{}\" is no tag; write its name alone, as in think",
                         tags_[i]);
      for (size_t j = 0; j < i; ++j)
        COHORT_CHECK_INPUT(tags_[i] != tags_[j], "reward format: tag {} stands twice", tags_[i]);
    }
  }

  std::string name() const override { return "format"; }

  std::vector<double> score(std::span<const Completion> batch) override {
    std::vector<double> values;
    for (const Completion& completion : batch) values.push_back(well_formed(completion.text));
    return values;
  }

 private:
  static size_t count(std::string_view text, const std::string& piece) {
    size_t found = 0;
    for (size_t at = text.find(piece); at != std::string_view::npos; at = text.find(piece, at + 1))
      ++found;
    return found;
  }

  bool well_formed(const std::string& completion) const {
    const std::string text = (prompt_opens_ ? "<" + tags_[0] + ">" : "") + completion;
    std::string_view rest = text;
    for (const std::string& tag : tags_) {
      const std::string open = "<" + tag + ">", close = "</" + tag + ">";
      if (count(text, open) != 1 || count(text, close) != 1) return false;
      rest = trimmed(rest);
      if (rest.substr(0, open.size()) != open) return false;
      const size_t end = rest.find(close);
      if (end == std::string_view::npos) return false;
      rest = rest.substr(end + close.size());
    }
    return trimmed(rest).empty();
  }

  std::vector<std::string> tags_;
  bool prompt_opens_;
};

}  // namespace

std::unique_ptr<Reward> make_format_reward(const nlohmann::json& options) {
  return std::make_unique<FormatReward>(options);
}

}  // namespace cohort::rl
