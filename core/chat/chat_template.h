// Chat templates: messages to the one text that a model was trained on.
//
// The subset of Jinja that the templates of real models use, rendered as transformers'
// apply_chat_template does (trim_blocks, lstrip_blocks, immutable values): docs/chat_templates.md
// lists it. What is not in it is refused when the template is read, or, where only a value can
// tell, when it is rendered, naming line and construct. A template is a stranger's program: its
// size, its nesting, the work it does and the text it writes are bounded.
#pragma once
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace cohort::core {

namespace chat {
struct Template;
}

/// A piece of a rendered conversation.
struct ChatSpan {
  std::string text;
  bool trained;  ///< What the assistant said: its tokens bear loss.
};

class ChatTemplate {
 public:
  /// `name` stands in messages: "FILE:LINE: ...". Throws InputError.
  static ChatTemplate parse(std::string_view text, std::string name = "chat template");

  /// `messages`: [{"role", "content", ...}, ...]. `variables`: an object of what else the template
  /// reads: bos_token, eos_token, tools, enable_thinking, ... Order of keys is kept. Throws
  /// InputError for messages that are none, that the template refuses (raise_exception), or a
  /// template that goes wrong on them.
  std::string render(const nlohmann::ordered_json& messages,
                     bool add_generation_prompt,
                     const nlohmann::ordered_json& variables = {}) const;

  /// The same without a generation prompt, cut where training begins and ends. With
  /// {% generation %} blocks what they write is trained, as transformers' assistant mask has it.
  /// Otherwise an assistant's message is what the conversation up to it has beyond the conversation
  /// before it with a generation prompt; throws InputError naming the message where the texts are
  /// no prefixes of each other (a template that rewrites history).
  std::vector<ChatSpan> render_spans(const nlohmann::ordered_json& messages,
                                     const nlohmann::ordered_json& variables = {}) const;

  /// Whether it marks what the assistant says by {% generation %}.
  bool has_generation() const;

 private:
  std::string name_;
  std::shared_ptr<const chat::Template> parsed_;
};

}  // namespace cohort::core
