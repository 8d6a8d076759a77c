// A file that appears whole or not at all.
#pragma once
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

namespace cohort::core {

/// Written as PATH.partial; `commit` flushes it to disk and renames it. Dropped without `commit`,
/// the partial file is removed. Throws InputError when the file cannot be made, Error when the disk
/// is full or a write fails otherwise; both name the file.
class OutputFile {
 public:
  explicit OutputFile(std::string path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(const void* data, size_t bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  /// Brings everything to disk and closes; after it only the rename can fail.
  void close();
  void commit();
  int64_t bytes() const { return bytes_; }

 private:
  [[noreturn]] void fail(const char* what) const;

  std::string path_, partial_;
  std::FILE* file_ = nullptr;
  std::vector<char> buffer_;
  int64_t bytes_ = 0;
  bool committed_ = false;
};

}  // namespace cohort::core
