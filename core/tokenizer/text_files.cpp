#include "core/tokenizer/text_files.h"

#include <zlib.h>

#include <filesystem>

#include "core/base/error.h"

namespace cohort::core {
namespace {

constexpr size_t kBlockBytes = 1 << 20;

bool is_visible(char c) { return c > ' ' && c < 0x7F; }

}  // namespace

size_t cut_position(std::string_view text) {
  for (size_t at = text.size(); at-- > 2;)
    if (text[at - 1] == '\n' && is_visible(text[at]) && is_visible(text[at - 2])) return at;
  if (const size_t line = text.rfind('\n'); line != text.npos) return line + 1;
  size_t at = text.size();
  while (at > 1 && (text[at - 1] & 0xC0) == 0x80) --at;
  return at > 1 ? at - 1 : text.size();
}

TextFiles::TextFiles(std::vector<std::string> paths) : paths_(std::move(paths)) {
  for (const std::string& path : paths_) {
    COHORT_CHECK_INPUT(std::filesystem::exists(path), "{}: no such file", path);
    COHORT_CHECK_INPUT(
        !std::filesystem::is_directory(path), "{}: is a folder, should be a text file", path);
  }
}

TextFiles::~TextFiles() {
  if (file_) gzclose(static_cast<gzFile>(file_));
}

bool TextFiles::open_next() {
  if (next_path_ == paths_.size()) return false;
  const std::string& path = paths_[next_path_++];
  file_ = gzopen(path.c_str(), "rb");  // passes what is not gzip through
  COHORT_CHECK_INPUT(file_, "{}: cannot be opened", path);
  gzbuffer(static_cast<gzFile>(file_), 1 << 17);
  return true;
}

bool TextFiles::next(std::string& text) {
  for (;;) {
    if (!file_ && !open_next()) return false;
    const std::string& path = paths_[next_path_ - 1];
    gzFile file = static_cast<gzFile>(file_);
    text = std::move(rest_);
    rest_.clear();
    const bool at_start = text.empty() && gztell(file) == 0;
    const size_t before = text.size();
    text.resize(before + kBlockBytes);
    const int got = gzread(file, text.data() + before, kBlockBytes);
    int code = Z_OK;
    gzerror(file, &code);
    COHORT_CHECK_INPUT(got >= 0 && (code == Z_OK || code == Z_STREAM_END),
                       "{}: cannot be read, or its gzip data is cut or broken",
                       path);
    text.resize(before + got);
    COHORT_CHECK_INPUT(!at_start || text.substr(0, 4) != "\x28\xB5\x2F\xFD",
                       "{}: is compressed by zstd: decompress it first",
                       path);
    if (static_cast<size_t>(got) == kBlockBytes) {
      const size_t cut = cut_position(text);
      rest_ = text.substr(cut);
      text.resize(cut);
      return true;
    }
    gzclose(file);
    file_ = nullptr;
    if (!text.empty()) return true;
  }
}

}  // namespace cohort::core
