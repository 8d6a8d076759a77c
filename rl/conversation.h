// How a conversation becomes text to learn from: which of it the model is to say itself.
#pragma once
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace cohort::rl {

/// A stretch of text that is tokenised by itself, so that no token is partly trained.
struct TextSpan {
  std::string text;
  bool trained = false;
  friend bool operator==(const TextSpan&, const TextSpan&) = default;
};

/// The text of a list of messages {"role", "content"}; with `add_generation_prompt` it ends where
/// an assistant is to speak.
using RenderMessages =
    std::function<std::string(const nlohmann::ordered_json& messages, bool add_generation_prompt)>;

/// ChatML, the format where a model brings none of its own: <|im_start|>role\ncontent<|im_end|>\n a
/// message; the generation prompt is <|im_start|>assistant\n.
std::string chatml(const nlohmann::ordered_json& messages, bool add_generation_prompt);

/// The conversation up to the end of its last assistant turn. Assistant turns from message
/// `first_trained` on are trained: what `render` writes after the generation prompt, the end of the
/// turn included but not the white space behind it. `messages` are objects with texts role and
/// content. Throws InputError when `render` changes earlier turns as a conversation goes on, or
/// leaves out what an assistant says (white space aside): such text is not what the model would
/// have written.
std::vector<TextSpan> render_conversation(const nlohmann::ordered_json& messages,
                                          size_t first_trained,
                                          const RenderMessages& render = chatml);

/// How a model's conversations are rendered; `variables`: what else a template reads ("tools").
/// Throws InputError as render_conversation does.
using RenderConversation =
    std::function<std::vector<TextSpan>(const nlohmann::ordered_json& messages,
                                        size_t first_trained,
                                        const nlohmann::ordered_json& variables)>;

/// render_conversation by chatml.
std::vector<TextSpan> chatml_conversation(const nlohmann::ordered_json& messages,
                                          size_t first_trained,
                                          const nlohmann::ordered_json& variables);

/// By the chat template of `folder` (core/chat/chat_folder.h), ChatML when there is none. What
/// {% generation %} blocks write is trained, where the template has them; else render_conversation
/// tells. The template is read when a conversation first needs it; one that is broken or not known
/// throws InputError then.
RenderConversation folder_conversation(const std::string& folder);

}  // namespace cohort::rl
