// A file that only grows, by whole records.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace cohort::core {

/// Appends records to a file. A record is in the file as a whole, or (disk full) not at all: what
/// was written of it is taken back, one warning is logged, and later records are tried again.
class AppendFile {
 public:
  /// Opens or creates `path`. Throws InputError with the reason when it cannot.
  explicit AppendFile(std::string path);
  ~AppendFile();
  AppendFile(const AppendFile&) = delete;
  AppendFile& operator=(const AppendFile&) = delete;

  /// Handed to the kernel before it returns: it survives the death of this process.
  void append(std::string_view record);

 private:
  std::string path_;
  int descriptor_ = -1;
  bool warned_ = false;
};

/// Step of one line of a .jsonl log ({"step": 12, ...}); -1 when the line is no such object.
int64_t step_of_line(std::string_view line);

/// Cuts a .jsonl log after the last whole line whose step is at most `last_step`; a line that is
/// torn (no newline) or is no object with a step ends what is kept. A missing file stays missing.
/// Reads as a stream: the file may be large.
void cut_after_step(const std::string& path, int64_t last_step);

}  // namespace cohort::core
