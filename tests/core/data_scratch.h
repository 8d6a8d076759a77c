// A folder for one test, and what the data tests put into it.
#pragma once
#include "core/data/indexed_dataset.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace cohort::tests {

/// Made empty, gone at the end.
class ScratchFolder {
 public:
  ScratchFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "cohort_data_XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  ~ScratchFolder() { std::filesystem::remove_all(path_); }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;

  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  std::string path() const { return path_.string(); }
  /// Writes a file, with the folders it lies in.
  std::string write(const std::string& name, const std::string& content) const {
    const auto path = path_ / name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << content;
    return path.string();
  }

 private:
  std::filesystem::path path_;
};

inline std::string content_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

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
