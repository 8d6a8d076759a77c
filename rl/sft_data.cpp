#include "rl/sft_data.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/data/text_source.h"

namespace cohort::rl {
namespace {

using json = nlohmann::ordered_json;
namespace fs = std::filesystem;

constexpr const char* kWanted =
    R"(want {"prompt": ..., "completion": ...} or {"messages": [{"role": ..., "content": ...}, ...]})";
/// Nothing that an example holds is nested deeper.
constexpr int kMaxDepth = 64;

/// The object of a line; messages say where it stands.
class Record {
 public:
  Record(std::string_view line, const std::string& where) : where_(where) {
    const size_t bad = core::find_invalid_utf8(line);
    COHORT_CHECK_INPUT(
        bad == line.npos, "{}: byte {} of the line is not UTF-8; want JSON", where, bad + 1);
    bool too_deep = false;
    const auto watch = [&](int depth, json::parse_event_t, json&) {
      too_deep |= depth > kMaxDepth;
      return !too_deep;
    };
    object_ = json::parse(line, watch, false);
    COHORT_CHECK_INPUT(!too_deep, "{}: nested more than {} deep; {}", where, kMaxDepth, kWanted);
    COHORT_CHECK_INPUT(object_.is_object(), "{}: this line is no JSON object; {}", where, kWanted);
  }

  bool has(const char* key) const { return object_.contains(key) && !object_[key].is_null(); }
  bool is_list(const char* key) const { return object_[key].is_array(); }
  bool is_true(const char* key) const { return has(key) && object_[key] == true; }
  const json& at(const char* key) const { return object_[key]; }

  const std::string& text(const char* key) const {
    COHORT_CHECK_INPUT(object_[key].is_string(),
                       "{}: {} is {}; want a text, or prompt and completion as lists of messages",
                       where_,
                       key,
                       object_[key].type_name());
    return object_[key].get_ref<const std::string&>();
  }

  const json& messages(const char* key) const {
    const json& list = object_[key];
    COHORT_CHECK_INPUT(list.is_array() && !list.empty(),
                       "{}: {} is {}; want a list of messages {{\"role\", \"content\"}}",
                       where_,
                       key,
                       list.is_array() ? "empty" : list.type_name());
    for (size_t i = 0; i < list.size(); ++i) check_message(list[i], fmt::format("{}[{}]", key, i));
    return list;
  }

 private:
  void check_message(const json& message, const std::string& name) const {
    const auto is_text = [&](const char* key) {
      return message.contains(key) && message[key].is_string();
    };
    COHORT_CHECK_INPUT(message.is_object() && is_text("role") && is_text("content"),
                       "{}: {} is no message; want texts role and content",
                       where_,
                       name);
    const auto& role = message["role"].get_ref<const std::string&>();
    COHORT_CHECK_INPUT(
        role == "system" || role == "user" || role == "assistant" || role == "tool",
        "{}: the role of {} is {}; want system, user, assistant or tool",
        where_,
        name,
        json(role.substr(0, 40)).dump(-1, ' ', false, json::error_handler_t::replace));
  }

  const std::string& where_;
  json object_;
};

std::vector<TextSpan> conversation(const Record& record,
                                   const json& messages,
                                   size_t first_trained,
                                   const std::string& where,
                                   const SftFormat& format) {
  bool any = false;
  for (size_t i = first_trained; i < messages.size(); ++i) {
    if (messages[i]["role"] != "assistant") continue;
    any = true;
    COHORT_CHECK_INPUT(!messages[i]["content"].get_ref<const std::string&>().empty(),
                       "{}: an assistant turn is empty; there is nothing to learn from it",
                       where);
  }
  COHORT_CHECK_INPUT(any, "{}: no assistant speaks; there is nothing to learn from it", where);
  json variables = json::object();
  if (record.has("tools")) variables["tools"] = record.at("tools");
  try {
    return format.conversation(messages, first_trained, variables);
  } catch (const InputError& error) {
    throw InputError(fmt::format("{}: {}", where, error.what()));
  }
}

std::vector<TextSpan> spans_of(const Record& record,
                               const std::string& where,
                               const SftFormat& format,
                               bool& is_conversation) {
  const bool pair = record.has("completion"), messages = record.has("messages");
  COHORT_CHECK_INPUT(pair != messages,
                     "{}: {}; {}",
                     where,
                     pair ? "both a completion and messages" : "neither completion nor messages",
                     kWanted);
  is_conversation = messages || record.is_list("completion");
  if (messages) return conversation(record, record.messages("messages"), 0, where, format);
  COHORT_CHECK_INPUT(record.has("prompt"), "{}: a completion without a prompt; {}", where, kWanted);
  if (is_conversation) {
    json all = record.messages("prompt");
    const size_t first_trained = all.size();
    for (const auto& message : record.messages("completion")) all.push_back(message);
    return conversation(record, all, first_trained, where, format);
  }
  const std::string& completion = record.text("completion");
  COHORT_CHECK_INPUT(
      !completion.empty(), "{}: the completion is empty; there is nothing to learn from it", where);
  return {{record.text("prompt"), false}, {completion, true}};
}

/// The teacher's word on the completion, where the line has it and it is asked for.
Teacher teacher_of(const Record& record,
                   bool is_conversation,
                   const std::string& where,
                   const SftFormat& format) {
  if (!format.teacher || !record.has("teacher")) return {};
  COHORT_CHECK_INPUT(!is_conversation,
                     "{}: a teacher's tokens beside a conversation; want a prompt and a completion "
                     "that are texts, as cohort sample writes",
                     where);
  Teacher teacher = read_teacher(record.at("teacher"), where, format.vocab_size);
  COHORT_CHECK_INPUT(teacher.tokenizer == format.tokenizer_xxh3,
                     "{}: the teacher's tokenizer ({}) is not this model's ({}), its tokens mean "
                     "other texts; want the same tokenizer, or sft.distill.weight=0, which learns "
                     "from the text alone",
                     where,
                     teacher.tokenizer,
                     format.tokenizer_xxh3);
  const std::string& completion = record.text("completion");
  const std::span<const int32_t> tokens(teacher.tokens);
  COHORT_CHECK_INPUT(format.tokenizer->decode(tokens) == completion ||
                         format.tokenizer->decode(tokens.first(tokens.size() - 1)) == completion,
                     "{}: teacher.tokens do not spell the completion; want both as cohort sample "
                     "writes them",
                     where);
  return teacher;
}

/// Whether a turn is over with this token.
bool ends(int32_t token, bool is_conversation, const SftFormat& format) {
  if (token == format.eos_token_id) return true;
  return is_conversation && format.tokenizer->decode({&token, 1}, true).empty() &&
         !format.tokenizer->decode({&token, 1}, false).empty();
}

}  // namespace

SftExample sft_example(std::string_view line, const std::string& where, const SftFormat& format) {
  const Record record(line, where);
  bool is_conversation = false;
  SftExample example;
  const auto add = [&](int32_t token, bool trained) {
    example.tokens.push_back(token);
    example.trained.push_back(trained);
  };
  const auto spans = spans_of(record, where, format, is_conversation);
  example.teacher = teacher_of(record, is_conversation, where, format);
  for (const TextSpan& span : spans) {
    std::vector<int32_t> ids;
    try {
      ids = format.tokenizer->encode(span.text);
    } catch (const InputError& error) {
      throw InputError(fmt::format("{}: {}", where, error.what()));
    }
    // A chat template may write the begin token itself.
    const bool begins = !is_conversation || ids.empty() || ids[0] != format.bos_token_id;
    if (example.tokens.empty() && format.bos_token_id >= 0 && begins)
      add(static_cast<int32_t>(format.bos_token_id), false);
    if (span.trained && !example.teacher.tokens.empty()) {
      example.teacher_begin = static_cast<int64_t>(example.tokens.size());
      ids = example.teacher.tokens;
    }
    for (const int32_t id : ids) add(id, span.trained);
  }
  if (format.eos_token_id >= 0 && !record.is_true("truncated") &&
      (example.tokens.empty() || !ends(example.tokens.back(), is_conversation, format)))
    add(static_cast<int32_t>(format.eos_token_id), true);
  const bool learns =
      std::find(example.trained.begin() + !example.trained.empty(), example.trained.end(), true) !=
      example.trained.end();
  COHORT_CHECK_INPUT(learns,
                     "{}: one token alone, which nothing predicts; want a prompt or a longer "
                     "completion",
                     where);
  return example;
}

SftFile::SftFile(const std::string& path, const SftFormat& format, int64_t max_tokens)
    : path_(path) {
  std::error_code ignored;
  COHORT_CHECK_INPUT(fs::exists(path, ignored),
                     "{}: there is no such file; want JSONL with a prompt and a completion, or "
                     "messages, a line",
                     path);
  COHORT_CHECK_INPUT(!fs::is_directory(path, ignored), "{}: is a folder; want a JSONL file", path);
  core::TextOptions options;
  options.split = core::Split::lines;
  core::RecordReader reader(path, options);
  core::Record record;
  while (reader.next(record)) {
    const std::string where = fmt::format("{}:{}", path, record.line);
    COHORT_CHECK_INPUT(record.broken.empty(), "{}: {}; {}", where, record.broken, kWanted);
    const SftExample example = sft_example(record.text, where, format);
    if (static_cast<int64_t>(example.tokens.size()) > max_tokens)
      ++left_out_;
    else
      add(example);
  }
  COHORT_CHECK_INPUT(count() > 0,
                     "{}: each of its {} examples is longer than data.seq_len={}; want more, or "
                     "shorter examples",
                     path,
                     left_out_,
                     max_tokens);
  xxh3_ = reader.file().file_xxh3();
}

void SftFile::add(const SftExample& example) {
  tokens_.insert(tokens_.end(), example.tokens.begin(), example.tokens.end());
  trained_.insert(trained_.end(), example.trained.begin(), example.trained.end());
  starts_.push_back(static_cast<int64_t>(tokens_.size()));
  num_trained_ += std::count(example.trained.begin(), example.trained.end(), true);
  const Teacher& teacher = example.teacher;
  teachers_.push_back({example.teacher_begin,
                       static_cast<int64_t>(teacher.tokens.size()),
                       teacher.top,
                       static_cast<int64_t>(top_tokens_.size())});
  top_tokens_.insert(top_tokens_.end(), teacher.top_tokens.begin(), teacher.top_tokens.end());
  top_log_probs_.insert(
      top_log_probs_.end(), teacher.top_log_probs.begin(), teacher.top_log_probs.end());
  num_teacher_ += teachers_.back().count;
}

int64_t SftFile::num_targets(int64_t i, int64_t k) const {
  int64_t count = 0;
  for (int64_t t = k + 1; t < length(i); ++t) count += trained(i, t);
  return count;
}

}  // namespace cohort::rl
