#include "rl/conversation.h"

#include "core/base/error.h"

namespace cohort::rl {
namespace {

using nlohmann::json;

constexpr const char* kBlank = " \t\r\n";

json first_of(const json& messages, size_t count) {
  json out = json::array();
  for (size_t i = 0; i < count; ++i) out.push_back(messages[i]);
  return out;
}

std::string trimmed(const std::string& text) {
  const size_t first = text.find_first_not_of(kBlank);
  if (first == text.npos) return "";
  return text.substr(first, text.find_last_not_of(kBlank) + 1 - first);
}

}  // namespace

std::string chatml(const json& messages, bool add_generation_prompt) {
  std::string text;
  for (const auto& message : messages)
    text += "<|im_start|>" + message.at("role").get<std::string>() + "\n" +
            message.at("content").get<std::string>() + "<|im_end|>\n";
  return add_generation_prompt ? text + "<|im_start|>assistant\n" : text;
}

std::vector<TextSpan> render_conversation(const json& messages,
                                          size_t first_trained,
                                          const RenderMessages& render) {
  std::vector<TextSpan> spans;
  std::string done;
  for (size_t i = first_trained; i < messages.size(); ++i) {
    if (messages[i].at("role") != "assistant") continue;
    const std::string before = render(first_of(messages, i), true);
    const std::string after = render(first_of(messages, i + 1), false);
    COHORT_CHECK_INPUT(before.starts_with(done) && after.starts_with(before),
                       "the chat template changes what came before message {}; want one in which "
                       "a conversation only grows",
                       i);
    const std::string turn = after.substr(before.size());
    const size_t end = turn.find_last_not_of(kBlank) + 1;  // npos + 1 = 0
    COHORT_CHECK_INPUT(
        turn.find(trimmed(messages[i].at("content").get<std::string>())) != turn.npos,
        "the chat template leaves out part of what message {} says; want one that keeps it",
        i);
    spans.push_back({before.substr(done.size()), false});
    spans.push_back({turn.substr(0, end), true});
    done = before + spans.back().text;
  }
  return spans;
}

}  // namespace cohort::rl
