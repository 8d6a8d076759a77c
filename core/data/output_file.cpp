#include "core/data/output_file.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/base/error.h"

namespace cohort::core {

OutputFile::OutputFile(std::string path)
    : path_(std::move(path)), partial_(path_ + ".partial"), buffer_(1 << 18) {
  file_ = std::fopen(partial_.c_str(), "wb");
  COHORT_CHECK_INPUT(file_, "{}: cannot be written: {}", path_, std::strerror(errno));
  std::setvbuf(file_, buffer_.data(), _IOFBF, buffer_.size());
}

OutputFile::~OutputFile() {
  if (file_) std::fclose(file_);
  if (!committed_) ::unlink(partial_.c_str());
}

void OutputFile::fail(const char* what) const {
  throw Error(fmt::format("{}: {} after {} bytes: {}", path_, what, bytes_, std::strerror(errno)));
}

void OutputFile::write(const void* data, size_t bytes) {
  COHORT_CHECK(file_, "{}: written to after it was closed", path_);
  if (bytes == 0) return;
  if (std::fwrite(data, 1, bytes, file_) != bytes) fail("writing failed");
  bytes_ += static_cast<int64_t>(bytes);
}

void OutputFile::close() {
  if (!file_) return;
  const bool flushed = std::fflush(file_) == 0 && ::fsync(::fileno(file_)) == 0;
  const int why = errno;
  std::fclose(file_);
  file_ = nullptr;
  errno = why;
  if (!flushed) fail("writing failed");
}

void OutputFile::commit() {
  close();
  if (std::rename(partial_.c_str(), path_.c_str()) != 0) fail("renaming into place failed");
  committed_ = true;
}

}  // namespace cohort::core
