// What a tokenizer.json says, in our terms: read from it, written to it, or made by training.
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "core/tokenizer/added_tokens.h"
#include "core/tokenizer/bpe.h"

namespace cohort::core {

struct TokenizerDefinition {
  std::string name;  ///< The file, for messages.
  /// Of the BPE model, by id, as the file writes them (byte-level characters).
  std::vector<std::string> vocabulary;
  std::vector<Bpe::Merge> merges;
  std::vector<AddedToken> added;  ///< By id; an id below vocabulary.size() stands in both.
  bool ignore_merges = false;     ///< A pre-token that is a token as a whole is that token.
  bool is_nfc = false;            ///< Text is normalised before it is cut.
  /// Everything else at the top (truncation, padding, normalizer, pre_tokenizer, post_processor,
  /// decoder) and in the model, kept for writing. encode neither truncates, pads nor adds tokens.
  nlohmann::json header, model;

  int64_t vocab_size() const {
    return std::max<int64_t>(vocabulary.size(), added.empty() ? 0 : added.back().id + 1);
  }
};

/// Throws InputError, one line naming the file (`name`) and the field, unless the text is a
/// byte-level BPE tokenizer of which every part is understood.
TokenizerDefinition read_definition(std::string_view text, const std::string& name);
/// The same definition, in Hugging Face's layout.
std::string write_definition(const TokenizerDefinition& definition);

}  // namespace cohort::core
