// A file's bytes, decompressed on the way when it is gzip or Zstandard.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace cohort::core {

/// Streams a file; its first bytes, not its name, tell how it is compressed. A stream that is cut
/// or damaged ends early with `damage()` saying so: what was read before stands. Throws InputError
/// when the file cannot be opened.
class InputFile {
 public:
  explicit InputFile(const std::string& path);
  ~InputFile();
  InputFile(InputFile&&) noexcept;

  /// Fills up to `size` bytes; 0 at the end.
  size_t read(char* out, size_t size);
  /// Why the stream ended early; empty when it did not.
  const std::string& damage() const;

  /// Of the file as it lies on disk; they read it to its end first, if need be.
  int64_t file_bytes();
  std::string file_xxh3();  ///< XXH3, 64 bits, 16 hexadecimal digits.

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// XXH3 of a whole file as 16 hexadecimal digits.
std::string file_xxh3(const std::string& path);

/// Bits that `gzip -9` (zlib, level 9, gzip framing) spends on each byte of a file; 0 for an empty
/// one.
double gzip_bits_per_byte(const std::string& path);

}  // namespace cohort::core
