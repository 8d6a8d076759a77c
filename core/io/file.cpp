#include "core/io/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <system_error>
#include <utility>

#include "core/base/error.h"

namespace cohort::core {

std::string system_reason(int error_number) {
  return std::generic_category().message(error_number);
}

FileWriter::FileWriter(std::string path) : path_(std::move(path)) {
  descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  COHORT_CHECK(descriptor_ >= 0, "cannot create {}: {}", path_, system_reason(errno));
}

FileWriter::~FileWriter() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink(path_.c_str());
}

void FileWriter::write(const void* data, size_t size) {
  auto* next = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t written = ::write(descriptor_, next, size);
    if (written < 0 && errno == EINTR) continue;
    // A disk with room for a part takes that part; the call after it says why not the rest.
    COHORT_CHECK(written > 0,
                 "cannot write {}: {}",
                 path_,
                 written < 0 ? system_reason(errno) : "the system takes no more bytes");
    next += written;
    size -= static_cast<size_t>(written);
  }
}

void FileWriter::finish() {
  COHORT_CHECK(::fsync(descriptor_) == 0, "cannot write {}: {}", path_, system_reason(errno));
  // Some file systems (NFS) tell of a full disk only here.
  const int descriptor = std::exchange(descriptor_, -1);
  if (::close(descriptor) != 0 && errno != EINTR) {
    const int reason = errno;
    ::unlink(path_.c_str());
    throw Error(fmt::format("cannot write {}: {}", path_, system_reason(reason)));
  }
}

void write_file(const std::string& path, std::string_view content) {
  FileWriter file(path);
  file.write(content.data(), content.size());
  file.finish();
}

void fsync_folder(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  COHORT_CHECK(descriptor >= 0, "cannot open folder {}: {}", path, system_reason(errno));
  const int result = ::fsync(descriptor);
  const int reason = errno;
  ::close(descriptor);
  // EINVAL: a file system that has no such thing, and keeps its folders in step itself.
  COHORT_CHECK(result == 0 || reason == EINVAL,
               "cannot put folder {} on the disk: {}",
               path,
               system_reason(reason));
}

void rename_path(const std::string& from, const std::string& to) {
  COHORT_CHECK(std::rename(from.c_str(), to.c_str()) == 0,
               "cannot rename {} to {}: {}",
               from,
               to,
               system_reason(errno));
}

void replace_file(const std::string& path, std::string_view content) {
  const std::string unfinished = path + ".tmp";
  write_file(unfinished, content);
  rename_path(unfinished, path);
  const std::string folder = std::filesystem::path(path).parent_path().string();
  fsync_folder(folder.empty() ? "." : folder);
}

MappedFile::MappedFile(std::string path) : path_(std::move(path)) {
  const int descriptor = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  COHORT_CHECK_INPUT(descriptor >= 0, "cannot open {}: {}", path_, system_reason(errno));
  struct stat status {};
  const bool regular = ::fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode);
  void* mapped = nullptr;
  int reason = 0;
  if (regular && status.st_size > 0) {
    mapped =
        ::mmap(nullptr, static_cast<size_t>(status.st_size), PROT_READ, MAP_PRIVATE, descriptor, 0);
    reason = errno;
  }
  ::close(descriptor);
  COHORT_CHECK_INPUT(regular, "{} is not a regular file", path_);
  COHORT_CHECK_INPUT(mapped != MAP_FAILED, "cannot read {}: {}", path_, system_reason(reason));
  data_ = static_cast<const std::byte*>(mapped);
  size_ = static_cast<size_t>(status.st_size);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

void MappedFile::read(size_t at, void* into, size_t size) const {
  const int descriptor = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  COHORT_CHECK_INPUT(descriptor >= 0, "cannot open {}: {}", path_, system_reason(errno));
  auto* next = static_cast<char*>(into);
  ssize_t got = 1;
  int reason = 0;
  while (size > 0 && got != 0) {
    got = ::pread(descriptor, next, size, static_cast<off_t>(at));
    if (got < 0 && errno != EINTR) {
      reason = errno;
      break;
    }
    const auto count = static_cast<size_t>(std::max<ssize_t>(got, 0));
    next += count;
    at += count;
    size -= count;
  }
  ::close(descriptor);
  COHORT_CHECK_INPUT(size == 0,
                     "cannot read {}: {}",
                     path_,
                     reason ? system_reason(reason) : "it was cut short meanwhile");
}

void MappedFile::release(const std::byte* from, size_t size) const {
  // A page that is looked at brings its neighbours of this window with it, on Linux as it is
  // usually set.
  constexpr uintptr_t kWindow = 64 << 10;
  const auto first = reinterpret_cast<uintptr_t>(data_);
  const auto begin = std::max(reinterpret_cast<uintptr_t>(from) / kWindow * kWindow, first);
  const auto end = std::min(
      (reinterpret_cast<uintptr_t>(from) + size + kWindow - 1) / kWindow * kWindow, first + size_);
  if (size > 0) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

MappedFile::~MappedFile() {
  if (data_) ::munmap(const_cast<std::byte*>(data_), size_);
}

}  // namespace cohort::core
