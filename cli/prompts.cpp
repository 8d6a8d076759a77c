#include "cli/prompts.h"

#include <filesystem>
#include <fstream>

#include "core/base/error.h"

namespace cohort::cli {
namespace {

Prompt read_line(const std::string& line, const std::string& where, bool chat) {
  auto fields = nlohmann::ordered_json::parse(line, nullptr, false);
  COHORT_CHECK_INPUT(!fields.is_discarded(),
                     "{}: is not JSON; want an object such as {{\"prompt\": \"...\"}}",
                     where);
  COHORT_CHECK_INPUT(
      fields.is_object(), "{}: is no object; want one such as {{\"prompt\": \"...\"}}", where);
  if (chat && fields.contains("messages")) {
    COHORT_CHECK_INPUT(fields["messages"].is_array(), "{}: its \"messages\" is no list", where);
    return {"", std::move(fields), where};
  }
  const auto prompt = fields.find("prompt");
  COHORT_CHECK_INPUT(prompt != fields.end(), "{}: has no field \"prompt\"; want a text", where);
  COHORT_CHECK_INPUT(prompt->is_string(), "{}: its \"prompt\" is no text; want a string", where);
  std::string text = prompt->get<std::string>();
  return {std::move(text), std::move(fields), where};
}

}  // namespace

std::vector<Prompt> read_prompts(const std::string& path, bool chat) {
  std::error_code ignored;
  COHORT_CHECK_INPUT(!std::filesystem::is_directory(path, ignored),
                     "{}: is a folder; want a JSONL file of prompts",
                     path);
  std::ifstream file(path, std::ios::binary);
  COHORT_CHECK_INPUT(file.good(), "{}: cannot be opened; want a JSONL file of prompts", path);
  std::vector<Prompt> prompts;
  std::string line;
  for (int64_t number = 1; std::getline(file, line); ++number)
    if (line.find_first_not_of(" \t\r") != std::string::npos)
      prompts.push_back(read_line(line, fmt::format("{}:{}", path, number), chat));
  COHORT_CHECK_INPUT(!prompts.empty(), "{}: holds no prompts; want one object a line", path);
  return prompts;
}

}  // namespace cohort::cli
