#include "rl/teacher.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "core/base/error.h"
#include "core/io/base64.h"
#include "core/io/xxh3.h"

namespace cohort::rl {
namespace {

using nlohmann::ordered_json;

static_assert(std::endian::native == std::endian::little, "numbers are written as they lie");

template <class T>
std::string packed(const std::vector<T>& values) {
  return core::base64(values.data(), values.size() * sizeof(T));
}

template <class T>
std::vector<T> unpacked(const ordered_json& json, const char* key, const std::string& where) {
  const auto found = json.find(key);
  COHORT_CHECK_INPUT(found != json.end() && found->is_string(),
                     "{}: teacher.{} is missing or no text; want what cohort sample writes",
                     where,
                     key);
  const auto bytes = core::from_base64(found->get_ref<const std::string&>());
  COHORT_CHECK_INPUT(bytes && bytes->size() % sizeof(T) == 0,
                     "{}: teacher.{} is no Base64 of numbers of {} bytes; want what cohort sample "
                     "writes",
                     where,
                     key,
                     sizeof(T));
  std::vector<T> values(bytes->size() / sizeof(T));
  if (!values.empty()) std::memcpy(values.data(), bytes->data(), bytes->size());
  return values;
}

void check(const Teacher& teacher, const std::string& where, int64_t vocab_size) {
  const auto n = static_cast<int64_t>(teacher.tokens.size());
  COHORT_CHECK_INPUT(n > 0 && static_cast<int64_t>(teacher.top_tokens.size()) == n * teacher.top &&
                         teacher.top_log_probs.size() == teacher.top_tokens.size(),
                     "{}: teacher has {} tokens, {} likeliest ones and {} log-probabilities; want "
                     "{} of each for a token",
                     where,
                     n,
                     teacher.top_tokens.size(),
                     teacher.top_log_probs.size(),
                     teacher.top);
  for (const auto* list : {&teacher.tokens, &teacher.top_tokens})
    for (const int32_t token : *list)
      COHORT_CHECK_INPUT(token >= 0 && token < vocab_size,
                         "{}: teacher names token {}, the model knows ids below {}",
                         where,
                         token,
                         vocab_size);
  std::vector<int32_t> row;
  for (int64_t i = 0; i < n; ++i) {
    const auto first = teacher.top_tokens.begin() + i * teacher.top;
    row.assign(first, first + teacher.top);
    std::sort(row.begin(), row.end());
    double sum = 0;
    for (int64_t j = 0; j < teacher.top; ++j) {
      const auto log_prob = static_cast<double>(teacher.top_log_probs[i * teacher.top + j]);
      sum += std::isfinite(log_prob) ? std::exp(log_prob) : 2;
    }
    COHORT_CHECK_INPUT(std::adjacent_find(row.begin(), row.end()) == row.end() && sum <= 1.001,
                       "{}: teacher.top_log_probs of token {} are no probabilities of {} "
                       "different tokens",
                       where,
                       i,
                       teacher.top);
  }
}

}  // namespace

std::string tokenizer_xxh3(const core::Tokenizer& tokenizer) {
  const std::string json = tokenizer.to_json();
  return core::xxh3_hex(json.data(), json.size());
}

ordered_json teacher_json(const Teacher& teacher) {
  return {{"tokenizer", teacher.tokenizer},
          {"top", teacher.top},
          {"tokens", packed(teacher.tokens)},
          {"top_tokens", packed(teacher.top_tokens)},
          {"top_log_probs", packed(teacher.top_log_probs)}};
}

Teacher read_teacher(const ordered_json& json, const std::string& where, int64_t vocab_size) {
  const bool whole = json.is_object() && json.contains("tokenizer") &&
                     json["tokenizer"].is_string() && json.contains("top") &&
                     json["top"].is_number_integer();
  COHORT_CHECK_INPUT(whole && json["top"] >= 1 && json["top"] <= vocab_size,
                     "{}: teacher has no tokenizer or no number of likeliest tokens from 1 to the "
                     "vocabulary's {}; want what cohort sample writes",
                     where,
                     vocab_size);
  Teacher teacher{json["tokenizer"].get<std::string>(),
                  json["top"].get<int64_t>(),
                  unpacked<int32_t>(json, "tokens", where),
                  unpacked<int32_t>(json, "top_tokens", where),
                  unpacked<float>(json, "top_log_probs", where)};
  check(teacher, where, vocab_size);
  return teacher;
}

}  // namespace cohort::rl
