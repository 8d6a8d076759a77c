// The built-in rules and their options. Every option has a default but those marked *.
//
// format      1 when the text is exactly one pair of each tag, in order, with nothing but white
// space
//             outside; else 0.
//   tags            ["think", "answer"]
//   prompt_opens    false: the prompt ends with the first opening tag, the text starts inside of it
// math_answer 1 when the answer in the text equals the problem's (rl/rewards/math), else 0.
//   answer_key      "answer": field of the problem that holds the gold answer
//   answer_tag      "answer": look inside the last pair of this tag where there is one; "" for
//   never
// countdown   1 when the expression in the text uses the problem's `numbers` and reaches its
// `target`.
//   answer_tag      "answer": where the expression stands; "" for the last line of the text
//   use             "all" (each number exactly once) or "any" (at most once); a problem's own `use`
//   wins partial         0.0: value of a well-formed expression of the right numbers that misses
//   the target
// exact       1 when the answer equals the problem's as a string: white space at the ends dropped,
//             inside collapsed.
//   answer_key      "answer"
//   answer_tag      "answer": the whole text where it has no such tag
//   ignore_case     true
// length      DAPO's soft overlong punishment (arXiv 2503.14476, eq. 13), with L the completion's
// tokens:
//             0 for L <= max_tokens - cache_tokens, then linearly to -1 at max_tokens, -1 beyond.
//   max_tokens *    hard limit of a completion
//   cache_tokens *  length of the slope, in 1 .. max_tokens
// language    share of the letters that are of the wanted script; 1 for a text without letters.
//             LaTeX commands and tags do not count.
//   script          "prompt" (the script of most letters of the prompt) or latin, han, cyrillic,
//   greek,
//                   arabic, hebrew, devanagari, hangul, kana, thai
// code_tests  runs the program in the text on the problem's `tests` ([{input, output}, ...]).
//   command         ["python3", "-I", "{file}"]: what runs it; {file} is the program's path
//   file            "main.py": name of that file
//   credit          "all" (1 when every test passes) or "share" (the share that passes)
//   max_tests       0: how many of a problem's tests run, 0 for all
//   seconds         5: wall and processor time of one test
//   memory_mb       512: address space of a process
//   file_mb         8: largest file
//   processes       32: processes and threads of one program
//                   (where the kernel has no user namespaces and we are not root, the kernel counts
//                   all processes of our user)
//   output_kb       256: of standard output; more is a failed test
//   workers         2: programs that run at once
// command     an external program scores the batch. It reads one JSON object a line,
//             {index, count, prompt, completion, tokens, truncated, problem}, and answers one line
//             for each, in order: a number, or an object whose `reward` is a number. `count` lines
//             follow one another; the program flushes after each line or at the latest after the
//             last. Where it ends, is silent or answers something else, the samples without a sure
//             answer get 0 and count as failures, one warning is given, and the program is started
//             again for the next batch.
//   command *       ["python3", "my_reward.py"], or one string for /bin/sh
//   keep            true: the program stays up between batches; false: it is started for each
//   batch, reads
//                   to the end of its input and exits with status 0
//   seconds         60: for one batch
#pragma once
#include <memory>

#include "rl/rewards/reward.h"

namespace cohort::rl {

std::unique_ptr<Reward> make_format_reward(const nlohmann::json& options);
std::unique_ptr<Reward> make_math_answer_reward(const nlohmann::json& options);
std::unique_ptr<Reward> make_countdown_reward(const nlohmann::json& options);
std::unique_ptr<Reward> make_exact_reward(const nlohmann::json& options);
std::unique_ptr<Reward> make_length_reward(const nlohmann::json& options);
std::unique_ptr<Reward> make_language_reward(const nlohmann::json& options);
std::unique_ptr<Reward> make_code_tests_reward(const nlohmann::json& options);
std::unique_ptr<Reward> make_command_reward(const nlohmann::json& options);

}  // namespace cohort::rl
