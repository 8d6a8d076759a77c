// Documents out of text and JSONL files, compressed or not, with a file:line for what is broken.
#pragma once
#include "core/data/input_file.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace cohort::core {

/// How a plain text file becomes documents. Line ends become '\n'; a document's last ones go away.
enum class Split {
  file,         ///< One document a file.
  blank_lines,  ///< One a run of lines that are not blank.
  lines,        ///< One a line.
};

struct TextOptions {
  std::string field = "text";  ///< Of a JSON line.
  Split split = Split::file;
};

/// Larger documents are reported as broken: each one stands in memory whole.
constexpr int64_t kMaxDocumentBytes = 64 << 20;

/// The files behind paths of files, folders (searched through; hidden entries left out) and glob
/// patterns, each input's sorted by name. Left out of folders: files of folder `out` with a name
/// that `cohort data prepare` writes. Throws InputError for a path that names nothing.
std::vector<std::string> expand_inputs(const std::vector<std::string>& inputs,
                                       const std::string& out);

/// A document before its text was looked at.
struct Record {
  int64_t line = 1;   ///< Where it begins, from 1.
  bool json = false;  ///< `text` is a line of JSON.
  std::string text;
  std::string broken;  ///< Why there is no text; else empty.
};

/// Streams the records of one file. Names ending in .jsonl, .ndjson or .json (before .gz, .zst) are
/// JSON lines, everything else is text. A file without any record gives one broken record; so does
/// a stream that is cut, in the place of the document that is not whole. Records longer than
/// kMaxDocumentBytes are broken.
class RecordReader {
 public:
  RecordReader(const std::string& path, const TextOptions& options);
  bool next(Record& record);
  /// For its size and hash once `next` gave false.
  InputFile& file() { return file_; }

 private:
  bool fill();
  bool read_line();
  bool take_line(Record& record);
  bool take_paragraph(Record& record);
  bool finish(Record& record);

  InputFile file_;
  bool json_;
  Split split_;
  std::vector<char> buffer_;
  size_t at_ = 0, end_ = 0;
  std::string line_;
  bool too_long_ = false;
  int64_t line_number_ = 0, num_records_ = 0;
  bool finished_ = false;
};

/// Turns a record into its document: takes the field out of a JSON line, checks UTF-8. What is
/// wrong goes to `broken` (and its line to `line`); no exception.
void parse_record(Record& record, const TextOptions& options);

/// Where the first byte lies that is not part of valid UTF-8 (no surrogates, no overlong forms);
/// npos when there is none.
size_t find_invalid_utf8(std::string_view text);

/// Unicode characters without the white space around the text.
int64_t count_characters(std::string_view text);

}  // namespace cohort::core
