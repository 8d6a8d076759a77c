// What went into a token set and what did not: data_card.json.
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace cohort::core {

/// One input file. documents + duplicates + too_short + broken = all that was found in it.
struct SourceCard {
  std::string path;
  std::string xxh3;        ///< Of the file as it lies on disk.
  int64_t file_bytes = 0;  ///< As it lies on disk.
  int64_t documents = 0;   ///< Kept, for training and validation.
  int64_t validation_documents = 0;
  int64_t tokens = 0;                ///< Of the documents kept, begin and end tokens included.
  int64_t text_bytes = 0;            ///< UTF-8 bytes of the documents kept.
  int64_t duplicates = 0;            ///< Dropped: the very same text came earlier.
  int64_t too_short = 0;             ///< Dropped: fewer characters than asked for.
  int64_t broken = 0;                ///< Dropped: not readable.
  std::vector<std::string> reasons;  ///< "file:line: why" of the first broken ones.
};

struct SetCard {
  int64_t documents = 0, tokens = 0;
  int64_t bytes = 0;  ///< UTF-8 bytes plus one a document, as TokenSetInfo counts.
};

struct DataCard {
  nlohmann::ordered_json options;    ///< How it was made.
  nlohmann::ordered_json tokenizer;  ///< path, xxh3, vocab_size, begin_token, end_token
  std::vector<SourceCard> sources;
  SetCard train, validation;
  double validation_gzip_bits_per_byte = 0;  ///< `gzip -9` on the held-out text; 0 without any.

  /// Sum over the sources.
  SourceCard total() const;
  nlohmann::ordered_json to_json() const;
};

}  // namespace cohort::core
