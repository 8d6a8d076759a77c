// What the data tests put into their folders.
#pragma once
#include "core/data/indexed_dataset.h"

#include <string>
#include <vector>

#include "tests/scratch_folder.h"

namespace cohort::tests {

/// Writes a token set of the given documents.
inline std::string write_set(const std::string& prefix,
                             const std::vector<std::vector<int32_t>>& documents,
                             int64_t vocab_size,
                             core::TokenSetInfo info = {}) {
  core::IndexedDatasetWriter writer(prefix, vocab_size);
  for (const auto& document : documents) writer.add_document(document);
  writer.finish(info);
  return prefix;
}

/// Documents whose tokens all differ: document d of `lengths.size()` holds consecutive ids.
inline std::vector<std::vector<int32_t>> distinct_documents(const std::vector<int>& lengths,
                                                            int32_t first = 0) {
  std::vector<std::vector<int32_t>> documents;
  for (const int length : lengths) {
    documents.emplace_back();
    for (int i = 0; i < length; ++i) documents.back().push_back(first++);
  }
  return documents;
}

}  // namespace cohort::tests
