// Examples of supervised fine-tuning, from a JSONL file (plain, gzip or Zstandard), one a line:
//
//   {"prompt": "37 + 48 =", "completion": " 85"}
//   {"prompt": [{"role", "content"}, ...], "completion": [{"role": "assistant", "content"}]}
//   {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."},
//   ...]}
//
// Conversations are rendered by the model's chat template (rl/conversation.h), which is given
// "tools" too, and what else a message holds. Roles are system, user, assistant and tool. Trained
// are the tokens of the completion, or of every assistant turn (of the completion's, where there is
// one); the end token is one of them: the model's is appended to what does not end in it, or, in a
// conversation, in a special token, unless the line says "truncated": true. Other keys are accepted
// and not read (`cohort sample` writes where a completion is from).
//
// For distillation (SftFormat::teacher) a line's "teacher" is read (rl/teacher.h): the completion's
// tokens are those that the teacher drew, which another cut of the same text need not be.
//
// Prompt and completion are tokenised separately, as in GRPO, which tokenises a prompt and then
// samples token by token: no token is partly prompt. The model's begin token comes first. Special
// tokens in a text are recognised.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/config/config.h"
#include "core/tokenizer/tokenizer.h"
#include "rl/conversation.h"
#include "rl/teacher.h"

namespace cohort::rl {

/// What turns a record into tokens.
struct SftFormat {
  const core::Tokenizer* tokenizer = nullptr;
  int64_t bos_token_id = -1, eos_token_id = -1;  ///< -1: none.
  RenderConversation conversation = chatml_conversation;
  bool teacher = false;        ///< Whether "teacher" is read. If so, what it must fit:
  std::string tokenizer_xxh3;  ///< Of `tokenizer`.
  int64_t vocab_size = 0;      ///< Of the model.
};

struct SftExample {
  std::vector<int32_t> tokens;
  std::vector<bool> trained;  ///< Of each token.
  Teacher teacher;            ///< Without tokens where the line has none.
  int64_t teacher_begin = 0;  ///< Where the teacher's tokens stand among `tokens`.
};

/// The example of one line. `where` ("file:line") begins the message of the InputError that is
/// thrown for a line that is none: not JSON, a missing, empty or wrong field, nothing to learn.
SftExample sft_example(std::string_view line, const std::string& where, const SftFormat& format);

/// What a teacher told of an example's tokens first .. first + count - 1: its `top` likeliest
/// tokens in place of each.
struct TeacherSpan {
  int64_t first = 0, count = 0, top = 0;
  int64_t at = 0;  ///< In the file's lists.
};

/// The examples of one file, in its order. Tokens stay in memory: about 4 bytes a token on each
/// rank, and 8 for each likeliest token of a teacher.
class SftFile {
 public:
  /// Examples of more than `max_tokens` tokens are counted and left out, never cut. Throws
  /// InputError, with file:line, at the first line that is no example, and when none is left.
  SftFile(const std::string& path, const SftFormat& format, int64_t max_tokens);

  const std::string& path() const { return path_; }
  const std::string& xxh3() const { return xxh3_; }
  int64_t count() const { return static_cast<int64_t>(starts_.size()) - 1; }
  int64_t left_out() const { return left_out_; }
  int64_t num_tokens() const { return static_cast<int64_t>(tokens_.size()); }
  int64_t num_trained() const { return num_trained_; }

  int64_t length(int64_t i) const { return starts_[i + 1] - starts_[i]; }
  std::span<const int32_t> tokens(int64_t i) const {
    return {tokens_.data() + starts_[i], static_cast<size_t>(length(i))};
  }
  bool trained(int64_t i, int64_t token_idx) const { return trained_[starts_[i] + token_idx]; }
  /// Trained tokens of example i that depth k (0: next token) predicts: those after token k.
  int64_t num_targets(int64_t i, int64_t k) const;

  const TeacherSpan& teacher(int64_t i) const { return teachers_[i]; }
  std::span<const int32_t> top_tokens(const TeacherSpan& of) const {
    return {top_tokens_.data() + of.at, static_cast<size_t>(of.count * of.top)};
  }
  std::span<const float> top_log_probs(const TeacherSpan& of) const {
    return {top_log_probs_.data() + of.at, static_cast<size_t>(of.count * of.top)};
  }
  /// Tokens of all examples of which a teacher told.
  int64_t num_teacher() const { return num_teacher_; }
  /// Of example i those that something predicts.
  int64_t num_teacher(int64_t i) const {
    return teachers_[i].count - (teachers_[i].count > 0 && teachers_[i].first == 0);
  }

 private:
  void add(const SftExample& example);

  std::string path_, xxh3_;
  std::vector<int32_t> tokens_;
  std::vector<bool> trained_;
  std::vector<int64_t> starts_{0};
  std::vector<TeacherSpan> teachers_;
  std::vector<int32_t> top_tokens_;
  std::vector<float> top_log_probs_;
  int64_t left_out_ = 0, num_trained_ = 0, num_teacher_ = 0;
};

}  // namespace cohort::rl
