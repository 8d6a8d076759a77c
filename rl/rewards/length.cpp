#include "rl/rewards/builtin.h"
#include "rl/rewards/options.h"

namespace cohort::rl {
namespace {

class LengthReward final : public Reward {
 public:
  explicit LengthReward(const nlohmann::json& json) {
    Options options("reward length", json);
    max_tokens_ = options.require<int64_t>("max_tokens");
    cache_tokens_ = options.require<int64_t>("cache_tokens");
    options.finish();
    options.within<int64_t>("max_tokens", max_tokens_, 1, int64_t{1} << 40);
    options.within<int64_t>("cache_tokens", cache_tokens_, 1, max_tokens_);
  }

  std::string name() const override { return "length"; }

  std::vector<double> score(std::span<const Completion> batch) override {
    std::vector<double> values;
    for (const Completion& completion : batch) {
      const int64_t beyond = completion.tokens - (max_tokens_ - cache_tokens_);
      const double slope = static_cast<double>(beyond) / static_cast<double>(cache_tokens_);
      values.push_back(beyond <= 0 ? 0.0 : completion.tokens > max_tokens_ ? -1.0 : -slope);
    }
    return values;
  }

 private:
  int64_t max_tokens_, cache_tokens_;
};

}  // namespace

std::unique_ptr<Reward> make_length_reward(const nlohmann::json& options) {
  return std::make_unique<LengthReward>(options);
}

}  // namespace cohort::rl
