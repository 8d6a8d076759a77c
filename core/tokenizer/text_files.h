// Reads text files (plain or gzip) a block at a time, cut where no pre-token is.
#pragma once
#include <memory>
#include <string>
#include <vector>

namespace cohort::core {

class TextFiles {
 public:
  /// Throws InputError at a file that is not there.
  explicit TextFiles(std::vector<std::string> paths);
  ~TextFiles();

  /// The next block, about 1 MiB, never across files; false at the end. Throws InputError naming
  /// the file when it cannot be read.
  bool next(std::string& text);

 private:
  bool open_next();

  std::vector<std::string> paths_;
  size_t next_path_ = 0;
  void* file_ = nullptr;
  std::string rest_;  // read, but behind the cut
};

/// Where to cut a text of which more follows: behind a line feed between visible ASCII characters,
/// where every known pre-tokeniser cuts too; failing that behind the last line feed, failing that
/// before the last whole character.
size_t cut_position(std::string_view text);

}  // namespace cohort::core
