#include "core/data/text_source.h"

#include <glob.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/base/error.h"

namespace cohort::core {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kBlank = " \t\r\n\v\f";
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

bool is_blank(std::string_view text) { return text.find_first_not_of(kBlank) == text.npos; }

bool is_json_lines(const std::string& path) {
  fs::path name = fs::path(path).filename();
  if (name.extension() == ".gz" || name.extension() == ".zst") name = name.stem();
  const std::string kind = name.extension().string();
  return kind == ".jsonl" || kind == ".ndjson" || kind == ".json";
}

bool is_own_output(const fs::path& path, const std::string& out) {
  std::error_code ignored;
  if (out.empty() || !fs::equivalent(path.parent_path(), out, ignored)) return false;
  const std::string name = path.filename().string();
  for (const char* begin : {"train.", "validation.", "data_card.json", "tokenizer.json"})
    if (name.starts_with(begin)) return true;
  return false;
}

void add_folder(const std::string& folder,
                const std::string& out,
                std::vector<std::string>& files) {
  const size_t before = files.size();
  auto entry =
      fs::recursive_directory_iterator(folder, fs::directory_options::follow_directory_symlink);
  for (; entry != fs::recursive_directory_iterator(); ++entry) {
    if (entry->path().filename().string().starts_with(".")) {
      entry.disable_recursion_pending();
    } else if (entry->is_regular_file() && !is_own_output(entry->path(), out)) {
      files.push_back(entry->path().string());
    }
  }
  COHORT_CHECK_INPUT(files.size() > before, "{}: a folder without files to read", folder);
  std::sort(files.begin() + static_cast<int64_t>(before), files.end());
}

void add_pattern(const std::string& pattern,
                 const std::string& out,
                 std::vector<std::string>& files) {
  const bool is_pattern = pattern.find_first_of("*?[") != pattern.npos;
  COHORT_CHECK_INPUT(is_pattern, "{}: no such file or folder", pattern);
  glob_t found{};
  const int result = ::glob(pattern.c_str(), GLOB_ERR, nullptr, &found);
  std::vector<std::string> paths(found.gl_pathv, found.gl_pathv + found.gl_pathc);
  ::globfree(&found);
  COHORT_CHECK_INPUT(result == 0 && !paths.empty(), "{}: the pattern matches nothing", pattern);
  for (const auto& path : paths) {
    if (fs::is_directory(path)) {
      add_folder(path, out, files);
    } else {
      files.push_back(path);
    }
  }
}

}  // namespace

std::vector<std::string> expand_inputs(const std::vector<std::string>& inputs,
                                       const std::string& out) {
  std::vector<std::string> files;
  for (const auto& input : inputs) {
    std::error_code why;
    const fs::file_status status = fs::status(input, why);
    try {
      if (fs::is_directory(status)) {
        add_folder(input, out, files);
      } else if (fs::exists(status)) {
        files.push_back(input);
      } else {
        add_pattern(input, out, files);
      }
    } catch (const fs::filesystem_error& error) {
      throw InputError(fmt::format(
          "{}: cannot be searched: {}", error.path1().string(), error.code().message()));
    }
  }
  return files;
}

RecordReader::RecordReader(const std::string& path, const TextOptions& options)
    : file_(path), json_(is_json_lines(path)), split_(options.split), buffer_(1 << 18) {}

bool RecordReader::fill() {
  at_ = 0;
  end_ = file_.read(buffer_.data(), buffer_.size());
  return end_ > 0;
}

/// The next line, without its end, into `line_`; false at the end of the stream, or when the stream
/// broke within the line.
bool RecordReader::read_line() {
  line_.clear();
  too_long_ = false;
  bool any = false, ended = false;
  while (!ended && (at_ < end_ || fill())) {
    any = true;
    const char* begin = buffer_.data() + at_;
    const char* newline = static_cast<const char*>(std::memchr(begin, '\n', end_ - at_));
    const size_t count = newline ? static_cast<size_t>(newline - begin) : end_ - at_;
    too_long_ |= static_cast<int64_t>(line_.size() + count) > kMaxDocumentBytes;
    if (!too_long_) line_.append(begin, count);
    ended = newline != nullptr;
    at_ += count + (ended ? 1 : 0);
  }
  // The last line of a file may lack its end; where the stream broke it means that it is not whole.
  if (!any || (!ended && !file_.damage().empty())) return false;
  ++line_number_;
  if (line_number_ == 1 && line_.starts_with(kByteOrderMark)) line_.erase(0, kByteOrderMark.size());
  if (line_.ends_with('\r')) line_.pop_back();
  return true;
}

bool RecordReader::take_line(Record& record) {
  while (read_line()) {
    if (!too_long_ && is_blank(line_)) continue;
    record.line = line_number_;
    record.json = json_;
    record.text.swap(line_);
    if (too_long_) record.broken = "longer than 64 MiB, the most for one document";
    return true;
  }
  return false;
}

/// Lines up to a blank one, or to the end of the file.
bool RecordReader::take_paragraph(Record& record) {
  bool too_long = false, any = false, ended = false;
  while (read_line()) {
    const bool blank = !too_long_ && is_blank(line_);
    if (split_ == Split::blank_lines && blank) {
      ended = any;
      if (ended) break;
      continue;
    }
    if (!any) record.line = line_number_;
    too_long |=
        too_long_ || static_cast<int64_t>(record.text.size() + line_.size()) > kMaxDocumentBytes;
    if (too_long) {
      record.text.clear();
    } else {
      if (any) record.text += '\n';
      record.text += line_;
    }
    any = true;
  }
  if (!any || (!ended && !file_.damage().empty())) return false;
  record.text.erase(record.text.find_last_not_of('\n') + 1);
  if (too_long)
    record.broken =
        "longer than 64 MiB, the most for one document; --split blank-lines or lines makes more of "
        "it";
  return true;
}

/// What is left to be told at the end of the stream.
bool RecordReader::finish(Record& record) {
  if (finished_) return false;
  finished_ = true;
  if (!file_.damage().empty()) {
    record.line = line_number_ + 1;
    record.broken = file_.damage();
  } else if (num_records_ == 0) {
    record.line = 1;
    record.broken = line_number_ == 0 ? "an empty file" : "no document in it, blank lines only";
  }
  return !record.broken.empty();
}

bool RecordReader::next(Record& record) {
  record = {};
  const bool by_line = json_ || split_ == Split::lines;
  if (finished_ || !(by_line ? take_line(record) : take_paragraph(record))) {
    record = {};
    return finish(record);
  }
  ++num_records_;
  return true;
}

void parse_record(Record& record, const TextOptions& options) {
  if (!record.broken.empty()) return;
  const size_t bad = find_invalid_utf8(record.text);
  if (bad != record.text.npos) {
    const size_t line_begin = record.text.rfind('\n', bad) + 1;  // npos + 1 = 0
    record.line +=
        std::count(record.text.begin(), record.text.begin() + static_cast<int64_t>(bad), '\n');
    record.broken = fmt::format("invalid UTF-8 at byte {} of the line", bad - line_begin + 1);
    return;
  }
  if (!record.json) return;
  try {
    auto json = nlohmann::json::parse(record.text);
    if (!json.is_object()) {
      record.broken = "not a JSON object";
    } else if (const auto field = json.find(options.field); field == json.end()) {
      record.broken = fmt::format("no field '{}'", options.field);
    } else if (!field->is_string()) {
      record.broken = fmt::format("field '{}' is not a string", options.field);
    } else {
      record.text = std::move(field->get_ref<std::string&>());
    }
  } catch (const nlohmann::json::parse_error& error) {
    record.broken = fmt::format("not JSON: wrong at byte {} of the line", error.byte);
  } catch (const nlohmann::json::exception&) {
    record.broken = "not JSON: a number out of range";
  }
}

size_t find_invalid_utf8(std::string_view text) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(text.data());
  const size_t size = text.size();
  const auto continues = [&](size_t i) { return i < size && (bytes[i] & 0xC0) == 0x80; };
  size_t i = 0;
  while (i < size) {
    uint64_t eight;
    if (i + 8 <= size && (std::memcpy(&eight, bytes + i, 8), (eight & 0x8080808080808080u) == 0)) {
      i += 8;
      continue;
    }
    const unsigned char lead = bytes[i];
    if (lead < 0x80) {
      i += 1;
    } else if (lead >= 0xC2 && lead <= 0xDF) {
      if (!continues(i + 1)) return i;
      i += 2;
    } else if (lead >= 0xE0 && lead <= 0xEF) {
      if (!continues(i + 1) || !continues(i + 2)) return i;
      if (lead == 0xE0 && bytes[i + 1] < 0xA0) return i;  // Overlong.
      if (lead == 0xED && bytes[i + 1] > 0x9F) return i;  // A surrogate.
      i += 3;
    } else if (lead >= 0xF0 && lead <= 0xF4) {
      if (!continues(i + 1) || !continues(i + 2) || !continues(i + 3)) return i;
      if (lead == 0xF0 && bytes[i + 1] < 0x90) return i;  // Overlong.
      if (lead == 0xF4 && bytes[i + 1] > 0x8F) return i;  // Beyond U+10FFFF.
      i += 4;
    } else {
      return i;
    }
  }
  return text.npos;
}

int64_t count_characters(std::string_view text) {
  const size_t first = text.find_first_not_of(kBlank);
  if (first == text.npos) return 0;
  text = text.substr(first, text.find_last_not_of(kBlank) - first + 1);
  return std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  });
}

}  // namespace cohort::core
