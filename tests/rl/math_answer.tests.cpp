#include <fstream>

#include "core/base/error.h"
#include "rl/rewards/math/judge.h"
#include "rl/rewards/math/work.h"
#include "tests/catch.h"
#include "tests/fixtures.h"
#include "tests/rl/completions.h"

using namespace cohort;
using rl::math::judge;

namespace {

bool same(const std::string& gold, const std::string& answer) { return judge(gold, answer).equal; }

std::string repeated(const std::string& piece, int times) {
  std::string text;
  for (int i = 0; i < times; ++i) text += piece;
  return text;
}

}  // namespace

TEST_CASE("math_answer judges as the reference does", "[rl][rewards][parity]") {
  for (const auto& file : tests::cases("rewards")) {
    std::ifstream in(file);
    std::string line, disagreements;
    int cases = 0, agreed = 0, expected_true = 0;
    while (std::getline(in, line)) {
      const auto row = nlohmann::json::parse(line);
      const bool expected = row.at("expected").get<bool>();
      const auto verdict =
          judge(row.at("gold").get<std::string>(), row.at("answer").get<std::string>());
      ++cases;
      expected_true += expected;
      if (verdict.equal == expected)
        ++agreed;
      else
        disagreements += line + "  took \"" + verdict.extracted + "\"\n";
    }
    INFO(file.string() << ": " << agreed << " of " << cases << "\n" << disagreements);
    if (!disagreements.empty()) WARN(file.string() << " disagrees on\n" << disagreements);
    CHECK(cases > 0);
    CHECK(expected_true > 0);
    CHECK(expected_true < cases);
    CHECK(agreed >= 0.97 * cases);
  }
}

TEST_CASE("numbers are equal in every writing", "[rl][rewards]") {
  const std::vector<std::vector<std::string>> groups = {
      {"1/2", "0.5", ".5", "\\frac12", "\\dfrac{1}{2}", "2^{-1}", "½", "\\frac{3}{6}", "50\\%"},
      {"1000", "1,000", "1{,}000", "10^3", "1e3", "1.0\\times10^{3}", "1\\,000", "1,000.00"},
      {"-3", "\\frac{-6}{2}", "−3", "-\\sqrt{9}", "-|{-3}|", "\\sqrt[3]{-27}"},
      {"1\\frac{1}{2}", "3/2", "1.5"},
      {"0.1\\overline{6}", "1/6"},
      {"120", "5!", "\\binom{10}{3}", "\\lfloor 120.7 \\rfloor"},
      {"3", "\\log_2 8", "\\log 1000", "\\ln(e^3)", "\\sqrt{2}\\sqrt{4.5}"},
      {"2\\sqrt{3}", "\\sqrt{12}", "\\frac{6}{\\sqrt3}", "2√3"},
      {"\\pi/6", "\\frac{\\pi}{6}", "\\arcsin\\frac12", "π/6"},
      {"2/(3x)", "\\frac{2}{3x}", "2/3x"},
      {"x^2-1", "(x-1)(x+1)", "-(1-x^2)", "x^2 - \\sin^2 y - \\cos^2 y"},
      {"-1", "i^2", "e^{i\\pi}", "\\cos\\pi"},
      {"12", "12 cm", "12\\text{ cm}^2", "12^\\circ", "\\$12", "$12$ dollars", "12 m"},
      {"(1,2)", "\\left( 1, 2 \\right)", "(1.0, 4/2)"},
      {"\\{1,2,3\\}", "\\{3,1,2\\}", "1, 2, 3", "3, 2 \\text{ and } 1", "\\{1,1,2,3\\}"},
      {"[0,1)\\cup(2,\\infty)", "(2,+\\infty)\\cup[0,1)"},
      {"x<3", "(-\\infty,3)", "3>x", "2x<6"},
      {"0\\le x\\le 1", "[0,1]", "1 \\geq x \\geq 0"},
      {"y=2x+1", "y - 2x = 1", "2y = 4x + 2", "2x+1"},
      {"x=\\pm 2", "\\{2,-2\\}", "-2, 2"},
      {"\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}",
       "\\begin{bmatrix} 1 & 2 \\\\ 3 & 8/2 \\end{bmatrix}"},
  };
  for (size_t g = 0; g < groups.size(); ++g)
    for (const std::string& gold : groups[g]) {
      if (&gold != &groups[g][0]) continue;
      for (const std::string& answer : groups[g]) {
        INFO(gold << " against " << answer);
        CHECK(same(gold, "\\boxed{" + answer + "}"));
        for (size_t other = 0; other < groups.size(); ++other)
          if (other != g) CHECK_FALSE(same(groups[other][0], "\\boxed{" + answer + "}"));
      }
    }
}

TEST_CASE("different answers differ", "[rl][rewards]") {
  const std::vector<std::pair<std::string, std::string>> pairs = {{"1/3", "0.333"},
                                                                  {"(1,2)", "(2,1)"},
                                                                  {"(0,1)", "[0,1]"},
                                                                  {"\\{1,2\\}", "(1,2)"},
                                                                  {"x=5", "y=5"},
                                                                  {"x<3", "x\\le 3"},
                                                                  {"x<3", "x>3"},
                                                                  {"5", "5x"},
                                                                  {"5\\%", "0.5"},
                                                                  {"12.5\\%", "12.5"},
                                                                  {"0.0000001", "0.0000002"},
                                                                  {"3", "3.0000001"},
                                                                  {"\\infty", "-\\infty"},
                                                                  {"1/0", "2/0"},
                                                                  {"x+1", "y+1"},
                                                                  {"\\sin x", "\\cos x"},
                                                                  {"\\sqrt{x^2}", "x"},
                                                                  {"10^{40}", "10^{40}+1"},
                                                                  {"7^{2000}", "7^{2000}+1"},
                                                                  {"Monday", "yadnoM"},
                                                                  {"no", "yes"}};
  for (const auto& [gold, answer] : pairs) {
    INFO(gold << " against " << answer);
    CHECK_FALSE(same(gold, "\\boxed{" + answer + "}"));
    CHECK_FALSE(same(answer, "\\boxed{" + gold + "}"));
  }
  CHECK(same("1/3", "\\boxed{0.333333}"));
  CHECK(same("7^{2000}", "\\boxed{7^{2000}}"));
  CHECK(same("9\\%", "9"));
}

TEST_CASE("the answer is found where the model put it", "[rl][rewards]") {
  CHECK(same("12", "First \\boxed{7}. No: $x=3$, so \\boxed{12}."));
  CHECK(same("12", "We get \\boxed{7}. Wait. The final answer is $12$."));
  CHECK_FALSE(same("7", "We get \\boxed{7}. Wait. The final answer is $12$."));
  CHECK(same("\\{1,2\\}", "So $\\boxed{1}$ and $\\boxed{2}$."));
  CHECK(same("1/2", "\\boxed{\\frac{1}{\\text{2}}}") == false);
  CHECK(same("72", "48 + 24 = 72\n#### 72"));
  CHECK(same("3/4", "The answer is 3/4, and 17 was a guess."));
  CHECK(same("5", "I get 3, then 4, in the end 5 apples"));
  CHECK(same("-2.5", "We find that x = -2.5."));
  CHECK(same("20", "It costs $20."));
  CHECK(same("\\frac{1}{2}", "Answer: $\\frac{1}{2}$."));
  CHECK(same("Monday", "The answer is \\boxed{\\text{Monday}}."));
  CHECK(same("(A)", "The answer is A."));
  CHECK(same("[0,1)", "So the set is [0, 1)."));
  CHECK(same("5", "So it is 5"));
  CHECK(same("x+1", "we get so $x+1$"));
  CHECK(same("2xy", "The answer is 2xy."));
  // Naming many numbers is no way to the right one.
  CHECK_FALSE(same("5", "1 2 3 4 5 6 7"));
  CHECK_FALSE(same("5", "\\boxed{4, 5}"));
  for (const char* nothing :
       {"", " ", "$$", "\\boxed{}", "((((((", "nan", "inf", "\\frac{", "no idea"})
    CHECK_FALSE(same("5", nothing));
}

TEST_CASE("math_answer looks inside the answer tag", "[rl][rewards]") {
  auto rule = tests::reward("math_answer");
  const nlohmann::json problem = {{"answer", "42"}};
  CHECK(tests::score(*rule, tests::completion("<think>41</think><answer>42</answer> 7", problem)) ==
        1);
  CHECK(tests::score(*rule,
                     tests::completion("<answer>41</answer><answer> 42 </answer>", problem)) == 1);
  CHECK(tests::score(*rule, tests::completion("<answer>41</answer> but 42", problem)) == 0);
  CHECK(tests::score(*rule, tests::completion("so it is 42", problem)) == 1);
  CHECK_THROWS_AS(tests::score(*rule, tests::completion("42")), InputError);
  auto other = tests::reward("math_answer", {{"answer_key", "gold"}, {"answer_tag", ""}});
  CHECK(tests::score(*other, tests::completion("<answer>1</answer> 42", {{"gold", 42}})) == 1);
}

TEST_CASE("a hostile answer costs a bounded amount of work and never more", "[rl][rewards]") {
  const std::vector<std::string> answers = {
      repeated("(", 1'000'000),
      repeated("[", 1'000'000) + "1" + repeated("]", 1'000'000),
      "\\boxed{" + repeated("{", 1'000'000),
      "$" + repeated("(", 900) + "1" + repeated(")", 900) + "$",
      repeated("9", 1'000'000),
      "\\boxed{" + repeated("9", 1'000'000) + "}",
      "9**9**9",
      "$9^9^9^9$",
      "\\boxed{9^{9^{9^{9}}}}",
      "\\boxed{(99999!)!}",
      "\\boxed{\\binom{500}{250}\\binom{520}{260}\\binom{519}{111}\\binom{509}{303}}",
      "1e999999999999",
      "\\boxed{" + repeated("-", 1901) + "5}",
      "\\boxed{5" + repeated("!", 1900) + "}",
      "\\boxed{" + repeated("\\sqrt{2+", 60) + "1" + repeated("}", 60) + "}",
      "\\boxed{" + repeated("x^{99}+", 200) + "1}",
      "\\boxed{" + repeated("\\sqrt{1000000007}+", 90) + "1}",
      "\\boxed{1" + repeated("/7!", 400) + "}",
      "\\boxed{\\sqrt{" + repeated("7", 1200) + "}}",
      "\\boxed{" + repeated("\\sin x,", 250) + "1}",
      repeated("\\boxed{", 100'000),
      repeated("\\[", 100'000),
      repeated("$$\\[\\(", 100'000),
      repeated("$x", 100'000),
      repeated("answer is ", 100'000),
      repeated("1 ", 300'000),
      repeated(" (1", 300'000),
      repeated("\\pm", 300) + "3",
      std::string(1'000'000, '\0'),
      repeated("\xff\xfe", 100'000),
  };
  const std::string many = repeated("\\cos x,", 250) + "1";
  for (const std::string gold : {"5", "x^2+1", many.c_str()})
    for (const std::string& answer : answers) {
      INFO(answer.substr(0, 60) << " of " << answer.size() << " bytes");
      const auto verdict = judge(gold, answer);
      CHECK_FALSE(verdict.equal);
      // One more operation may finish after the limit is met; none is larger than a product of two
      // numbers of the largest size.
      CHECK(verdict.steps <= rl::math::Work::kLimit + 100'000);
    }
  CHECK_FALSE(judge(repeated("(", 1'000'000), "5").equal);
  // Ordinary answers stay far below the limit.
  CHECK(judge("\\frac{1}{2}", "The answer is $0.5$.").steps < rl::math::Work::kLimit / 100);
}
