#include "rl/conversation.h"

#include <algorithm>
#include <memory>
#include <optional>

#include "core/base/error.h"
#include "core/chat/chat_folder.h"

namespace cohort::rl {
namespace {

using nlohmann::ordered_json;

constexpr const char* kBlank = " \t\r\n";

ordered_json first_of(const ordered_json& messages, size_t count) {
  ordered_json out = ordered_json::array();
  for (size_t i = 0; i < count; ++i) out.push_back(messages[i]);
  return out;
}

/// Without white space: templates may move it.
std::string squeezed(std::string text) {
  std::erase_if(text, [](char c) { return std::string_view(kBlank).find(c) != std::string::npos; });
  return text;
}

bool is_assistant(const ordered_json& message) { return message.at("role") == "assistant"; }

/// What {% generation %} blocks write, from message `first_trained` on.
std::vector<TextSpan> generation_spans(const core::ChatTemplate& chat,
                                       const ordered_json& messages,
                                       size_t first_trained,
                                       const ordered_json& variables) {
  // Blocks come in the order of messages: those of the messages before are the first.
  const ordered_json before = first_of(messages, first_trained);
  int64_t passed = 0;
  if (std::any_of(before.begin(), before.end(), is_assistant))
    for (const core::ChatSpan& span : chat.render_spans(before, variables)) passed += span.trained;
  std::vector<TextSpan> spans;
  for (const core::ChatSpan& span : chat.render_spans(messages, variables))
    spans.push_back({span.text, span.trained && --passed < 0});
  while (!spans.empty() && !spans.back().trained) spans.pop_back();
  COHORT_CHECK_INPUT(!spans.empty(),
                     "the chat template's {{% generation %}} holds nothing of what the assistant "
                     "says; want one around every assistant turn");
  return spans;
}

std::optional<core::FolderChat> chat_of(const std::string& folder) {
  if (!core::has_folder_chat(folder)) return std::nullopt;
  return core::read_folder_chat(folder);
}

}  // namespace

std::string chatml(const ordered_json& messages, bool add_generation_prompt) {
  std::string text;
  for (const auto& message : messages)
    text += "<|im_start|>" + message.at("role").get<std::string>() + "\n" +
            message.at("content").get<std::string>() + "<|im_end|>\n";
  return add_generation_prompt ? text + "<|im_start|>assistant\n" : text;
}

std::vector<TextSpan> render_conversation(const ordered_json& messages,
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
                       "a conversation only grows, or with {{% generation %}}",
                       i);
    const std::string turn = after.substr(before.size());
    const size_t end = turn.find_last_not_of(kBlank) + 1;  // npos + 1 = 0
    COHORT_CHECK_INPUT(
        squeezed(turn).find(squeezed(messages[i].at("content").get<std::string>())) !=
            std::string::npos,
        "the chat template leaves out part of what message {} says; want one that keeps it",
        i);
    spans.push_back({before.substr(done.size()), false});
    spans.push_back({turn.substr(0, end), true});
    done = before + spans.back().text;
  }
  return spans;
}

std::vector<TextSpan> chatml_conversation(const ordered_json& messages,
                                          size_t first_trained,
                                          const ordered_json&) {
  return render_conversation(messages, first_trained, chatml);
}

RenderConversation folder_conversation(const std::string& folder) {
  const auto found = std::make_shared<std::optional<std::optional<core::FolderChat>>>();
  return [=](const ordered_json& messages, size_t first_trained, const ordered_json& more) {
    if (!*found) *found = chat_of(folder);
    const std::optional<core::FolderChat>& chat = **found;
    if (!chat) return chatml_conversation(messages, first_trained, more);
    ordered_json variables = chat->variables;
    variables.update(more);
    if (chat->chat.has_generation())
      return generation_spans(chat->chat, messages, first_trained, variables);
    return render_conversation(messages, first_trained, [&](const ordered_json& part, bool prompt) {
      COHORT_CHECK_INPUT(!part.empty(),
                         "the assistant speaks first, which the chat template has no prompt for; "
                         "want a message that it answers");
      return chat->chat.render(part, prompt, variables);
    });
  };
}

}  // namespace cohort::rl
