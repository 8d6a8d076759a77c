// Megatron's indexed token files (`.bin` tokens, `.idx` lengths and offsets; "MMIDIDX\0\0", version
// 1), read through mmap. `PREFIX.json` beside them (ours; optional) adds what Megatron's format has
// no room for: bytes of text, vocabulary size, path and hash of the tokenizer.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace cohort::core {

struct TokenSetInfo {
  int64_t bytes = 0;       ///< UTF-8 bytes of the documents' text; 0 when unknown.
  int64_t vocab_size = 0;  ///< 0 when unknown.
  std::string tokenizer;   ///< Path of tokenizer.json as it was; may be empty.
  std::string tokenizer_xxh3;
};

/// Read side. Throws InputError on a missing, cut or malformed file, naming it. Thread safe.
class IndexedDataset {
 public:
  explicit IndexedDataset(const std::string& prefix);
  ~IndexedDataset();
  IndexedDataset(IndexedDataset&&) noexcept;

  int64_t num_documents() const;
  int64_t num_tokens() const;
  int64_t document_length(int64_t document) const;
  /// Copies `count` tokens of a document from `offset` into `out`.
  void read(int64_t document, int64_t offset, int64_t count, int64_t* out) const;
  const TokenSetInfo& info() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Write side: 16-bit tokens when vocab_size fits, else 32-bit. `finish` writes the index and
/// renames both into place.
class IndexedDatasetWriter {
 public:
  IndexedDatasetWriter(const std::string& prefix, int64_t vocab_size);
  ~IndexedDatasetWriter();
  void add_document(std::span<const int32_t> tokens);
  void finish(const TokenSetInfo& info);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace cohort::core
