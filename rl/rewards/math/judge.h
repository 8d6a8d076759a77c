// The whole way from a gold answer and a model's text to yes or no.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace cohort::rl::math {

struct Verdict {
  bool equal = false;
  std::string extracted;  // what was taken for the answer; empty when nothing was
  int64_t steps = 0;      // the work it took, never above Work::kLimit by more than one operation
};

/// `gold` is a bare answer in LaTeX or plain notation, or a text that holds one (boxed, between
/// dollar signs). The first candidate that can be read is the answer, right or wrong: a text that
/// names several numbers earns nothing by it. Never throws; what is too large or too deep is
/// unequal.
Verdict judge(std::string_view gold, std::string_view answer);

}  // namespace cohort::rl::math
