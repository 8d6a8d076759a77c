// The prompts of `cohort generate`.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace cohort::cli {

struct Prompt {
  std::string text;
  nlohmann::ordered_json fields;  ///< The line it came with; an object with "prompt" alone else.
  std::string where;              ///< "prompts.jsonl:3", "--prompt 1": for messages.
};

/// One object a line with the field `prompt`; blank lines are passed over. Throws InputError naming
/// the file and the line that is something else, or a file without prompts.
/// With `chat` a line may have a list `messages` instead; its text is empty then.
std::vector<Prompt> read_prompts(const std::string& path, bool chat = false);

}  // namespace cohort::cli
