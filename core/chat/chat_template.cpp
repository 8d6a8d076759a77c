#include "core/chat/chat_template.h"

#include "core/base/error.h"
#include "core/chat/evaluator.h"
#include "core/chat/lexer.h"
#include "core/chat/parser.h"

namespace cohort::core {
namespace {

using nlohmann::ordered_json;

constexpr size_t kMaxTemplateBytes = size_t{1} << 20;
/// Work of one rendering: this and so much for a byte of the messages.
constexpr int64_t kWork = int64_t{64} << 20, kWorkOfByte = 256;

void check_messages(const ordered_json& messages, const std::string& name) {
  COHORT_CHECK_INPUT(
      messages.is_array() && !messages.empty(),
      "{}: wants a list of messages such as [{{\"role\": \"user\", \"content\": \"...\"}}]",
      name);
  for (size_t i = 0; i < messages.size(); ++i)
    COHORT_CHECK_INPUT(
        messages[i].is_object() && messages[i].contains("role") && messages[i]["role"].is_string(),
        "{}: messages[{}] has no \"role\"; want an object with \"role\" and \"content\"",
        name,
        i);
}

/// Reasoning goes by three names; transformers gives a template the first of them that is set under
/// the first two.
ordered_json with_reasoning(const ordered_json& messages) {
  ordered_json out = messages;
  for (ordered_json& message : out)
    for (const char* name : {"reasoning_content", "thinking", "reasoning"}) {
      if (!message.contains(name) || message[name].is_null()) continue;
      const ordered_json reasoning = message[name];
      if (!message.contains("thinking")) {
        ordered_json first{{"thinking", reasoning}};
        first.update(message);
        message = std::move(first);
      }
      message["reasoning_content"] = reasoning;
      break;
    }
  return out;
}

size_t bytes_of(const ordered_json& json) {
  if (json.is_string()) return 16 + json.get_ref<const std::string&>().size();
  size_t bytes = 16;
  if (json.is_structured())
    for (const auto& item : json) bytes += bytes_of(item);
  return bytes;
}

chat::Rendered run(const chat::Template& parsed,
                   const std::string& name,
                   const ordered_json& messages,
                   bool add_generation_prompt,
                   const ordered_json& variables) {
  check_messages(messages, name);
  COHORT_CHECK_INPUT(
      variables.is_null() || variables.is_object(), "{}: wants an object of variables", name);
  // What transformers gives every template, set or not.
  ordered_json given{{"messages", nullptr},
                     {"tools", nullptr},
                     {"documents", nullptr},
                     {"add_generation_prompt", add_generation_prompt}};
  if (variables.is_object()) given.update(variables);
  std::vector<std::pair<std::string, chat::Value>> values;
  try {
    for (const auto& [key, value] : given.items())
      values.emplace_back(
          key, chat::Value::of_json(key == "messages" ? with_reasoning(messages) : value));
  } catch (const chat::Fault& fault) {
    throw InputError(fmt::format("{}: {}", name, fault.what()));
  }
  chat::Work work(kWork + kWorkOfByte * static_cast<int64_t>(bytes_of(messages) + bytes_of(given)));
  return chat::run_template(parsed, std::move(values), name, work);
}

class SpanWriter {
 public:
  explicit SpanWriter(const std::string& text) : text_(text) {}
  void trained(size_t begin, size_t end) {
    add(begin, false);
    add(end, true);
  }
  std::vector<ChatSpan> finish() {
    add(text_.size(), false);
    return std::move(spans_);
  }

 private:
  void add(size_t end, bool trained) {
    if (end <= at_) return;
    spans_.push_back({text_.substr(at_, end - at_), trained});
    at_ = end;
  }
  const std::string& text_;
  size_t at_ = 0;
  std::vector<ChatSpan> spans_;
};

}  // namespace

ChatTemplate ChatTemplate::parse(std::string_view text, std::string name) {
  COHORT_CHECK_INPUT(text.size() <= kMaxTemplateBytes,
                     "{}: a template of {} bytes; want {} at most",
                     name,
                     text.size(),
                     kMaxTemplateBytes);
  ChatTemplate out;
  out.name_ = std::move(name);
  out.parsed_ = std::make_shared<chat::Template>(chat::parse_template(text, out.name_));
  return out;
}

std::string ChatTemplate::render(const ordered_json& messages,
                                 bool add_generation_prompt,
                                 const ordered_json& variables) const {
  return run(*parsed_, name_, messages, add_generation_prompt, variables).text;
}

bool ChatTemplate::has_generation() const { return parsed_->has_generation; }

std::vector<ChatSpan> ChatTemplate::render_spans(const ordered_json& messages,
                                                 const ordered_json& variables) const {
  const chat::Rendered whole = run(*parsed_, name_, messages, false, variables);
  SpanWriter spans(whole.text);
  if (parsed_->has_generation) {
    COHORT_CHECK_INPUT(!whole.hidden_generation,
                       "{}: a {{% generation %}} inside a macro or a set has no place in the text",
                       name_);
    for (const auto& [begin, end] : whole.generated) spans.trained(begin, end);
    return spans.finish();
  }
  ordered_json before = ordered_json::array();
  for (size_t i = 0; i < messages.size(); ++i) {
    const bool trains = messages[i]["role"] == "assistant";
    std::string prompt;
    if (trains) {
      COHORT_CHECK_INPUT(
          i > 0, "{}: messages[0] is the assistant's; want one that it answers", name_);
      prompt = run(*parsed_, name_, before, true, variables).text;
    }
    before.push_back(messages[i]);
    if (!trains) continue;
    const std::string so_far = run(*parsed_, name_, before, false, variables).text;
    COHORT_CHECK_INPUT(
        so_far.starts_with(prompt) && whole.text.starts_with(so_far),
        "{}: what comes before messages[{}] is rendered otherwise with it than without "
        "it, so its tokens cannot be told; want a template with {{% generation %}}",
        name_,
        i);
    spans.trained(prompt.size(), so_far.size());
  }
  return spans.finish();
}

}  // namespace cohort::core
