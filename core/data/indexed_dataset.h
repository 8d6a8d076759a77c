// Megatron's indexed token files (`.bin` tokens, `.idx` lengths and offsets; "MMIDIDX\0\0", version
// 1), read through mmap. `PREFIX.json` beside them (ours; optional) adds what Megatron's format has
// no room for: bytes of text, vocabulary size, path and hash of the tokenizer.
//
// `.idx`, little endian, no padding: magic (9 bytes), u64 version = 1, u8 type of a token, u64
// sequences N, u64 document marks M, int32 length[N] (tokens), int64 pointer[N] (bytes into
// `.bin`), int64 mark[M]: document d is the sequences [mark[d], mark[d + 1]), so there are M - 1
// documents.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace cohort::core {

struct TokenSetInfo {
  int64_t bytes = 0;       ///< UTF-8 bytes of the documents' text, plus one a document for the
                           ///< newline that its end token stands for; 0 when unknown.
  int64_t vocab_size = 0;  ///< 0 when unknown.
  std::string tokenizer;   ///< Path of tokenizer.json; may be empty. A relative path in the file
                           ///< is relative to the file's folder; `info()` gives it resolved.
  std::string tokenizer_xxh3;
  int32_t begin_token = -1;  ///< First token of each document; -1: none.
  int32_t end_token = -1;    ///< Last token of each document; -1: none.
};

/// PREFIX of a token set named as PREFIX, PREFIX.bin or PREFIX.idx.
std::string token_set_prefix(const std::string& path);

/// Read side. Throws InputError on a missing, cut or malformed file, naming it. Thread safe.
class IndexedDataset {
 public:
  /// Accepts PREFIX, PREFIX.bin and PREFIX.idx.
  explicit IndexedDataset(const std::string& prefix);
  ~IndexedDataset();
  IndexedDataset(IndexedDataset&&) noexcept;

  int64_t num_documents() const;
  int64_t num_tokens() const;
  int64_t document_length(int64_t document) const;
  /// Tokens of all documents before this one; `num_tokens()` for document = num_documents().
  int64_t document_start(int64_t document) const;
  /// The document that holds token `position` of the concatenation of all documents, O(log).
  int64_t document_at(int64_t position) const;
  /// Copies `count` tokens of a document from `offset` into `out`.
  void read(int64_t document, int64_t offset, int64_t count, int64_t* out) const;
  const TokenSetInfo& info() const;
  const std::string& prefix() const;
  /// Bytes a token takes in the file: 1, 2, 4 or 8.
  int token_bytes() const;

  /// Throws InputError, naming document and position, for an id outside [0, vocab_size) among the
  /// first `limit` tokens (all when negative). One pass over the file.
  void check_tokens(int64_t vocab_size, int64_t limit = -1) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Write side: 16-bit tokens when vocab_size fits, else 32-bit. `finish` writes the index and
/// renames all files into place, the index last: a set with an index is whole. Dropped without
/// `finish`, it leaves nothing. Throws Error when the disk is full or a token is not in
/// [0, vocab_size).
class IndexedDatasetWriter {
 public:
  IndexedDatasetWriter(const std::string& prefix, int64_t vocab_size);
  ~IndexedDatasetWriter();
  void add_document(std::span<const int32_t> tokens);
  void finish(const TokenSetInfo& info);

  int64_t num_documents() const;
  int64_t num_tokens() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace cohort::core
