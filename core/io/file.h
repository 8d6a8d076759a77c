// Files that must be on the disk before the next thing happens, and files looked at through mmap.
#pragma once
#include <cstddef>
#include <string>
#include <string_view>

namespace cohort::core {

/// Writes a file from start to end. Every failure (a full disk, a file-size limit, no permission)
/// throws Error with the path and the system's reason. A file that is not finished is removed.
class FileWriter {
 public:
  /// Creates the file, or empties an existing one.
  explicit FileWriter(std::string path);
  ~FileWriter();
  FileWriter(const FileWriter&) = delete;

  void write(const void* data, size_t size);
  /// fsyncs and closes.
  void finish();

 private:
  std::string path_;
  int descriptor_;
};

/// Writes and fsyncs a small file.
void write_file(const std::string& path, std::string_view content);

/// The same beside its place (PATH.tmp), then renamed and the folder fsynced: who reads `path` at
/// any moment, or after a crash, finds the old file or the new one, whole. Throws Error.
void replace_file(const std::string& path, std::string_view content);

/// Puts a folder's entries (created, renamed, removed names) on the disk. Throws Error.
void fsync_folder(const std::string& path);

/// std::rename that throws Error with both names and the system's reason.
void rename_path(const std::string& from, const std::string& to);

/// "No space left on device" for ENOSPC.
std::string system_reason(int error_number);

/// A whole regular file, read-only, through mmap. Throws InputError with path and reason.
class MappedFile {
 public:
  explicit MappedFile(std::string path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;

  const std::string& path() const { return path_; }
  const std::byte* data() const { return data_; }  ///< Null when the file is empty.
  size_t size() const { return size_; }
  /// Copies bytes of the file without mapping them: nothing but the copy stays in memory. Throws
  /// InputError when the file is not there any more, or shorter.
  void read(size_t at, void* into, size_t size) const;
  /// Gives the memory of these bytes back; they are read from the file again when looked at.
  void release(const std::byte* from, size_t size) const;
  std::string_view text() const { return {reinterpret_cast<const char*>(data_), size_}; }

 private:
  std::string path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace cohort::core
