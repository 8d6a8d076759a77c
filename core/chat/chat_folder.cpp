#include "core/chat/chat_folder.h"

#include <filesystem>
#include <fstream>
#include <sstream>

#include "core/base/error.h"

namespace cohort::core {
namespace {

using nlohmann::ordered_json;

std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  COHORT_CHECK_INPUT(file.good(), "{}: cannot be read", path);
  return text.str();
}

/// A special token is a text, or an object with its text under "content".
void add_special_tokens(const ordered_json& config, ordered_json& variables) {
  for (const char* name : {"bos_token",
                           "eos_token",
                           "unk_token",
                           "sep_token",
                           "pad_token",
                           "cls_token",
                           "mask_token"}) {
    if (!config.contains(name)) continue;
    const ordered_json& token = config[name];
    if (token.is_string())
      variables[name] = token;
    else if (token.is_object() && token.contains("content") && token["content"].is_string())
      variables[name] = token["content"];
  }
}

std::string template_of(const ordered_json& config, const std::string& path) {
  const auto found = config.find("chat_template");
  COHORT_CHECK_INPUT(
      found != config.end() && !found->is_null(),
      "{}: has no chat_template and there is no chat_template.jinja beside it; want a "
      "model with one, or no --chat",
      path);
  if (found->is_string()) return found->get<std::string>();
  if (found->is_array())
    for (const auto& one : *found)
      if (one.is_object() && one.contains("name") && one["name"] == "default" &&
          one.contains("template") && one["template"].is_string())
        return one["template"].get<std::string>();
  throw InputError(fmt::format(
      "{}: chat_template should be a text or a list with a template called \"default\"", path));
}

/// An empty object when there is no such file.
ordered_json read_config(const std::string& path) {
  ordered_json config = ordered_json::object();
  if (!std::filesystem::is_regular_file(path)) return config;
  config = ordered_json::parse(read_text(path), nullptr, false);
  COHORT_CHECK_INPUT(config.is_object(), "{}: is no JSON object", path);
  return config;
}

}  // namespace

bool has_folder_chat(const std::string& folder) {
  if (std::filesystem::is_regular_file(folder + "/chat_template.jinja")) return true;
  const ordered_json config = read_config(folder + "/tokenizer_config.json");
  return config.contains("chat_template") && !config["chat_template"].is_null();
}

FolderChat read_folder_chat(const std::string& folder) {
  const std::string path = folder + "/tokenizer_config.json",
                    jinja = folder + "/chat_template.jinja";
  const bool has_jinja = std::filesystem::is_regular_file(jinja);
  const ordered_json config = read_config(path);
  ordered_json variables = ordered_json::object();
  add_special_tokens(config, variables);
  return {has_jinja ? ChatTemplate::parse(read_text(jinja), jinja)
                    : ChatTemplate::parse(template_of(config, path), path + ": chat_template"),
          variables};
}

}  // namespace cohort::core
