#include <unistd.h>

#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/data/indexed_dataset.h"
#include "core/data/output_file.h"

namespace cohort::core {
namespace {

template <class T>
void write_integer(OutputFile& file, T value) {
  file.write(&value, sizeof value);
}

}  // namespace

struct IndexedDatasetWriter::State {
  State(const std::string& named, int64_t vocab)
      : prefix(named), vocab_size(vocab), is_short(vocab <= 65536), tokens(named + ".bin") {}

  std::string prefix;
  int64_t vocab_size;
  bool is_short;
  OutputFile tokens;
  std::vector<int32_t> lengths;
  std::vector<uint16_t> narrow;
  int64_t num_tokens = 0;
};

IndexedDatasetWriter::IndexedDatasetWriter(const std::string& prefix, int64_t vocab_size) {
  COHORT_CHECK(vocab_size > 0, "{}: vocabulary of {}", prefix, vocab_size);
  state_ = std::make_unique<State>(prefix, vocab_size);
}
IndexedDatasetWriter::~IndexedDatasetWriter() = default;

void IndexedDatasetWriter::add_document(std::span<const int32_t> tokens) {
  State& state = *state_;
  COHORT_CHECK(tokens.size() <= std::numeric_limits<int32_t>::max(),
               "{}: a document of {} tokens; the format ends at 2^31 - 1",
               state.prefix,
               tokens.size());
  for (const int32_t token : tokens)
    COHORT_CHECK(token >= 0 && token < state.vocab_size,
                 "{}: token {} in document {}, outside the vocabulary of {}",
                 state.prefix,
                 token,
                 state.lengths.size(),
                 state.vocab_size);
  if (state.is_short) {
    state.narrow.assign(tokens.begin(), tokens.end());
    state.tokens.write(state.narrow.data(), 2 * state.narrow.size());
  } else {
    state.tokens.write(tokens.data(), 4 * tokens.size());
  }
  state.lengths.push_back(static_cast<int32_t>(tokens.size()));
  state.num_tokens += static_cast<int64_t>(tokens.size());
}

void IndexedDatasetWriter::finish(const TokenSetInfo& info) {
  State& state = *state_;
  const auto documents = static_cast<int64_t>(state.lengths.size());
  const std::string index_path = state.prefix + ".idx";
  OutputFile index(index_path);
  index.write("MMIDIDX\0\0", 9);
  write_integer<uint64_t>(index, 1);
  write_integer<uint8_t>(index, state.is_short ? 8 : 4);
  write_integer<uint64_t>(index, documents);
  write_integer<uint64_t>(index, documents + 1);
  index.write(state.lengths.data(), 4 * state.lengths.size());
  int64_t pointer = 0;
  for (const int32_t length : state.lengths) {
    write_integer<int64_t>(index, pointer);
    pointer += int64_t{length} * (state.is_short ? 2 : 4);
  }
  for (int64_t mark = 0; mark <= documents; ++mark) write_integer<int64_t>(index, mark);

  OutputFile sidecar(state.prefix + ".json");
  const nlohmann::ordered_json json{{"documents", documents},
                                    {"tokens", state.num_tokens},
                                    {"bytes", info.bytes},
                                    {"vocab_size", state.vocab_size},
                                    {"tokenizer", info.tokenizer},
                                    {"tokenizer_xxh3", info.tokenizer_xxh3},
                                    {"begin_token", info.begin_token},
                                    {"end_token", info.end_token}};
  sidecar.write(json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");

  // All that can run out of space comes first; then an index that stood for older tokens goes away
  // before they do.
  for (OutputFile* file : {&state.tokens, &index, &sidecar}) file->close();
  ::unlink(index_path.c_str());
  state.tokens.commit();
  sidecar.commit();
  index.commit();
}

int64_t IndexedDatasetWriter::num_documents() const {
  return static_cast<int64_t>(state_->lengths.size());
}
int64_t IndexedDatasetWriter::num_tokens() const { return state_->num_tokens; }

}  // namespace cohort::core
