#include "rl/rewards/reward.h"

#include <limits>

#include "core/base/error.h"
#include "tests/catch.h"
#include "tests/rl/completions.h"

using namespace cohort;
using tests::completion;
using tests::reward;
using tests::score;

TEST_CASE("format wants one pair of each tag and nothing outside", "[rl][rewards]") {
  auto rule = reward("format");
  const auto value = [&](const std::string& text) { return score(*rule, completion(text)); };
  CHECK(value("<think>a</think><answer>b</answer>") == 1);
  CHECK(value(" \n<think>a\n< b </think>\n\n<answer>b</answer>\n") == 1);
  CHECK(value("<think></think><answer></answer>") == 1);
  for (const char* bad : {"",
                          "b",
                          "<answer>b</answer>",
                          "<think>a</think>",
                          "x<think>a</think><answer>b</answer>",
                          "<think>a</think>x<answer>b</answer>",
                          "<think>a</think><answer>b</answer>x",
                          "<answer>b</answer><think>a</think>",
                          "<think>a<answer>b</answer></think>",
                          "<think>a</think><answer>b",
                          "<think>a<think>c</think><answer>b</answer>",
                          "<think>a</think></think><answer>b</answer>",
                          "<think>a</think><answer>b</answer><answer>b</answer>",
                          "</think>a<think><answer>b</answer>",
                          "<Think>a</Think><answer>b</answer>"}) {
    INFO(bad);
    CHECK(value(bad) == 0);
  }
  auto opened = reward("format", {{"prompt_opens", true}});
  CHECK(score(*opened, completion("a</think><answer>b</answer>")) == 1);
  CHECK(score(*opened, completion("<think>a</think><answer>b</answer>")) == 0);
  auto own = reward("format", {{"tags", {"plan", "work", "result"}}});
  CHECK(score(*own, completion("<plan>1</plan><work>2</work><result>3</result>")) == 1);
  CHECK(score(*own, completion("<work>2</work><plan>1</plan><result>3</result>")) == 0);
}

TEST_CASE("countdown wants the given numbers and the target", "[rl][rewards]") {
  const nlohmann::json problem = {{"numbers", {3, 7, 7, 2}}, {"target", 28}};
  const auto value = [&](const std::string& text,
                         nlohmann::json options = nlohmann::json::object()) {
    auto rule = reward("countdown", options);
    return score(*rule, completion("<think>.</think><answer>" + text + "</answer>", problem));
  };
  CHECK(value("7 * (7 - 3) * 1") == 0);  // 1 was not given, 2 is missing
  CHECK(value("(7 + 7) * 2 * 3") == 0);  // 84
  CHECK(value("7*(7-3)", {{"use", "any"}}) == 1);
  CHECK(value("7*(7-3)") == 0);
  CHECK(value("(7+7)*2", {{"use", "any"}}) == 1);
  CHECK(value("7*(7-3)/(3-2)") == 0);  // 3 twice
  CHECK(value("(7/7 + 3) * 2 = 8") == 0);
  const nlohmann::json exact = {{"numbers", {3, 8, 8, 3}}, {"target", 24}};
  auto rule = reward("countdown");
  CHECK(score(*rule, completion("<answer>8 / (3 - 8/3)</answer>", exact)) ==
        1);  // by fractions alone
  CHECK(score(*rule, completion("<answer>8 ÷ (3 − 8÷3) = 24</answer>", exact)) == 1);
  CHECK(score(*rule, completion("<answer>8 / (3 - 8/3) = 25</answer>", exact)) == 0);
  CHECK(score(*rule, completion("8 / (3 - 8/3)", exact)) == 0);  // no tag
  CHECK(score(*rule, completion("<answer>24</answer>", exact)) == 0);
  CHECK(score(*rule, completion("<answer>33 - 8 - 8/8</answer>", exact)) ==
        0);  // digits glued together
  CHECK(score(*rule, completion("<answer>8/(3-3) + 8</answer>", exact)) == 0);  // division by zero
  for (const char* bad :
       {"", "()", "8 8 3 3", "8 +", "__import__('os')", "8**3", "3.0+8", "(8+3"}) {
    INFO(bad);
    CHECK(score(*rule, completion(std::string("<answer>") + bad + "</answer>", exact)) == 0);
  }
  CHECK(score(*rule, completion("<answer>" + std::string(1'000'000, '(') + "</answer>", exact)) ==
        0);
  CHECK(score(*rule, completion("<answer>" + std::string(390, '(') + "</answer>", exact)) == 0);
  CHECK(score(*rule, completion("<answer>" + std::string(390, '9') + "</answer>", exact)) == 0);
  auto partial = reward("countdown", {{"partial", 0.1}});
  CHECK(score(*partial, completion("<answer>8+8+3+3</answer>", exact)) == 0.1);
  CHECK(score(*partial, completion("<answer>8+8+3</answer>", exact)) == 0);
  auto line = reward("countdown", {{"answer_tag", ""}});
  CHECK(score(*line, completion("let me see\n8/(3-8/3)\n", exact)) == 1);
  nlohmann::json any = exact;
  any["use"] = "any";
  any["target"] = 64;
  CHECK(score(*rule, completion("<answer>8*8</answer>", any)) == 1);
  CHECK_THROWS_AS(score(*rule, completion("<answer>8*8</answer>")), InputError);
}

TEST_CASE("exact compares normalised strings", "[rl][rewards]") {
  auto rule = reward("exact");
  const nlohmann::json problem = {{"answer", "New  York"}};
  CHECK(score(*rule, completion("<answer> new york\n</answer>", problem)) == 1);
  CHECK(score(*rule, completion("New York", problem)) == 1);
  CHECK(score(*rule, completion("NewYork", problem)) == 0);
  CHECK(score(*rule, completion("", problem)) == 0);
  CHECK(score(*rule, completion("", {{"answer", ""}})) == 0);
  auto strict = reward("exact", {{"ignore_case", false}});
  CHECK(score(*strict, completion("new york", problem)) == 0);
}

TEST_CASE("length falls from the cache to the limit", "[rl][rewards]") {
  auto rule = reward("length", {{"max_tokens", 100}, {"cache_tokens", 20}});
  const auto value = [&](int64_t tokens) {
    auto sample = completion("x");
    sample.tokens = tokens;
    return score(*rule, sample);
  };
  CHECK(value(0) == 0);
  CHECK(value(80) == 0);
  CHECK(value(81) == Approx(-0.05));
  CHECK(value(90) == Approx(-0.5));
  CHECK(value(100) == Approx(-1));
  CHECK(value(1000) == -1);
  CHECK_THROWS_AS(reward("length"), InputError);
  CHECK_THROWS_AS(reward("length", {{"max_tokens", 10}, {"cache_tokens", 11}}), InputError);
}

TEST_CASE("language is the share of letters in the wanted script", "[rl][rewards]") {
  auto rule = reward("language");
  const auto value = [&](const std::string& prompt, const std::string& text) {
    auto sample = completion(text);
    sample.prompt = prompt;
    return score(*rule, sample);
  };
  CHECK(value("What is it?", "<think>abc déf</think> 123") == 1);
  CHECK(value("什么?", "这是 \\frac{1}{2} <answer>二</answer>") == 1);
  CHECK(value("What is it?", "ab这是") == 0.5);
  CHECK(value("Что это?", "это ok") == Approx(0.6));
  CHECK(value("What is it?", "1 + 2 = 3") == 1);
  CHECK(value("1 + 2", "was") == 1);
  CHECK(value("What?",
              "\xff\xfe"
              "ab\xe8") == 1);  // broken UTF-8 is no letter
  auto han = reward("language", {{"script", "han"}});
  CHECK(score(*han, completion("abcd")) == 0);
  CHECK_THROWS_AS(reward("language", {{"script", "klingon"}}), InputError);
}

TEST_CASE("a sum weighs its rewards and keeps each", "[rl][rewards]") {
  const std::vector<rl::RewardConfig> configs = {
      {"format", 0.5, nlohmann::json::object()},
      {"math_answer", 2.0, nlohmann::json::object()},
      {"length", 0.0, {{"max_tokens", 10}, {"cache_tokens", 5}, {"label", "too_long"}}}};
  rl::RewardSum sum(configs);
  CHECK(sum.labels() == std::vector<std::string>{"format", "math_answer", "too_long"});
  std::vector<rl::Completion> batch = {
      completion("<think>.</think><answer>4</answer>", {{"answer", 4}}),
      completion("<answer>4</answer>", {{"answer", 4}}),
      completion("<think>.</think><answer>5</answer>", {{"answer", 4}})};
  batch[2].tokens = 100;
  const rl::Scores scores = sum.score(batch);
  CHECK(scores.total == std::vector<double>{2.5, 2.0, 0.5});
  CHECK(scores.components[0] == std::vector<double>{1, 0, 1});
  CHECK(scores.components[1] == std::vector<double>{1, 1, 0});
  CHECK(scores.components[2] == std::vector<double>{0, 0, -1});
  CHECK(sum.failures() == 0);
  CHECK(sum.score({}).total.empty());
}

TEST_CASE("a slip in the rewards' configuration is one clear line", "[rl][rewards]") {
  const auto message = [](const std::vector<rl::RewardConfig>& configs) {
    try {
      rl::RewardSum sum(configs);
    } catch (const InputError& error) {
      CHECK(std::string(error.what()).find('\n') == std::string::npos);
      return std::string(error.what());
    }
    return std::string("no error");
  };
  const auto object = nlohmann::json::object();
  using Catch::Matchers::Contains;
  CHECK_THAT(message({}), Contains("rl.rewards"));
  CHECK_THAT(message({{"formt", 1, object}}), Contains("formt") && Contains("math_answer"));
  CHECK_THAT(message({{"format", 1, {{"tag", "x"}}}}), Contains("tag") && Contains("prompt_opens"));
  CHECK_THAT(message({{"format", 1, {{"tags", "think"}}}}), Contains("tags") && Contains("list"));
  CHECK_THAT(message({{"format", 1, {{"tags", {"<think>"}}}}}), Contains("<think>"));
  CHECK_THAT(message({{"length", 1, {{"max_tokens", 1.5}, {"cache_tokens", 1}}}}),
             Contains("whole"));
  CHECK_THAT(message({{"format", 1, object}, {"format", 1, object}}), Contains("label"));
  CHECK_THAT(message({{"format", std::numeric_limits<double>::infinity(), object}}),
             Contains("weight"));
  CHECK_THAT(message({{"countdown", 1, {{"use", "some"}}}}), Contains("some"));
  CHECK_THAT(message({{"command", 1, {{"command", {"no-such-program"}}}}}),
             Contains("no-such-program"));
  CHECK_THAT(message({{"code_tests", 1, {{"command", {"no-such-program"}}}}}),
             Contains("no-such-program"));
}
