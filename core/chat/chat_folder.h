// The chat template that comes with a model.
#pragma once
#include <nlohmann/json.hpp>
#include <string>

#include "core/chat/chat_template.h"

namespace cohort::core {

struct FolderChat {
  ChatTemplate chat;
  /// bos_token, eos_token, ...: the special tokens of tokenizer_config.json, as texts.
  nlohmann::ordered_json variables;
};

/// `folder`/chat_template.jinja, else chat_template of `folder`/tokenizer_config.json: a text, or a
/// list of {"name", "template"} of which "default" is taken. Throws InputError when there is none.
FolderChat read_folder_chat(const std::string& folder);

/// Whether read_folder_chat has something to read. Throws InputError for a tokenizer_config.json
/// that is no JSON object.
bool has_folder_chat(const std::string& folder);

}  // namespace cohort::core
