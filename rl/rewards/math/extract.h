// Where the answer stands in a model's text. In this order, the last of each kind counting:
//   1. \boxed{...} or \fbox{...}; several that follow one another directly are one list
//   2. after "final answer is" (which beats a box that stands before it), "answer:", "answer is",
//   "####"
//   3. the whole text, when it is short
//   4. the last formula ($...$, $$...$$, \(...\), \[...\]) or plain number
// Kinds 1 and 2 are sought in the whole text by linear searches; kind 4 in its last 16 KiB. What
// follows an opening sign is read for a bounded reach only, and at most kMaxCandidates pieces come
// of kind 4.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "rl/rewards/math/work.h"

namespace cohort::rl::math {

inline constexpr size_t kMaxCandidates = 12;

struct Candidate {
  std::string text;
  /// The writer marked it as the answer (kinds 1 to 3), so it may also be compared as words.
  bool marked = false;
  /// A sentence: to be compared as words alone, for "so it is 5" is no product of letters.
  bool prose = false;
};

/// Candidates, the most likely first. A megabyte costs about a millisecond; charged to `work` at
/// one step for every 64 bytes.
std::vector<Candidate> extract(std::string_view text, Work& work);

/// The formula that opens at `at`: its content and the place after it; an empty content where none
/// does.
struct Formula {
  std::string_view content;
  size_t end = 0;
};
Formula formula_at(std::string_view text, size_t at, Work& work);

/// The plain number or expression ("3/4", "-1,234.5", "(1, 2)") that starts at `at`; empty where
/// none.
std::string_view plain_at(std::string_view text, size_t at, Work& work);

}  // namespace cohort::rl::math
