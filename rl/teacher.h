// What a teacher thought while it wrote: the likeliest tokens in place of each token of a
// completion, beside it in an example's line.
//
//   "teacher": {"tokenizer": "<xxh3>", "top": K, "tokens": B, "top_tokens": B, "top_log_probs": B}
//
// B is Base64 of little-endian numbers: the n tokens of the completion as they were drawn (int32,
// the end token included), int32 [n, K] and fp32 [n, K], nats, of the untempered model, the
// likeliest first. About 11 bytes for each of n x K.
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/tokenizer/tokenizer.h"

namespace cohort::rl {

struct Teacher {
  std::string tokenizer;  ///< tokenizer_xxh3 of the teacher's.
  int64_t top = 0;        ///< K
  std::vector<int32_t> tokens;
  std::vector<int32_t> top_tokens;   ///< [tokens, K]
  std::vector<float> top_log_probs;  ///< likewise
};

/// 16 hexadecimal digits: the same for tokenizers that give every text the same ids.
std::string tokenizer_xxh3(const core::Tokenizer& tokenizer);

nlohmann::ordered_json teacher_json(const Teacher& teacher);

/// Throws InputError, beginning with `where`, for what teacher_json has not written: a field that
/// is missing or no Base64, sizes that do not fit, tokens outside 0 .. vocab_size - 1 or twice in a
/// row, log-probabilities that are none.
Teacher read_teacher(const nlohmann::ordered_json& json,
                     const std::string& where,
                     int64_t vocab_size);

}  // namespace cohort::rl
