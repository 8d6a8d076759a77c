#include "core/metrics/tensorboard.h"

#include <unistd.h>

#include <array>
#include <bit>
#include <chrono>
#include <cstring>
#include <filesystem>

#include "core/base/error.h"

namespace cohort::core {
namespace {

constexpr std::string_view kFilePrefix = "events.out.tfevents.";

std::array<uint32_t, 256> crc_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (crc & 1 ? 0x82F63B78u : 0u);
    table[byte] = crc;
  }
  return table;
}

/// Fixed-width little-endian bytes, as both TFRecord and protobuf's fixed32 / fixed64 want them.
template <class T>
std::string fixed(T value) {
  static_assert(std::endian::native == std::endian::little);
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

// Protobuf's wire format: a field is varint(number << 3 | wire type), then its value.
enum WireType : uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

std::string varint(uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>((value & 0x7F) | 0x80);
  return bytes += static_cast<char>(value);
}
std::string key(uint32_t field, WireType type) { return varint(field << 3 | type); }

std::string integer_field(uint32_t field, int64_t value) {
  return key(field, kVarint) + varint(static_cast<uint64_t>(value));
}
std::string double_field(uint32_t field, double value) {
  return key(field, kFixed64) + fixed(value);
}
std::string float_field(uint32_t field, float value) { return key(field, kFixed32) + fixed(value); }
std::string bytes_field(uint32_t field, std::string_view bytes) {
  return key(field, kBytes) + varint(bytes.size()) + std::string(bytes);
}

double seconds_since_1970() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string next_file_name(const std::string& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  COHORT_CHECK_INPUT(std::filesystem::is_directory(folder),
                     "{}: cannot be made ({}); run.dir must be a folder this user may write to",
                     folder,
                     error.message());
  // Two starts within a second must not depend on process ids for their order.
  int64_t stamp = static_cast<int64_t>(seconds_since_1970());
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(kFilePrefix))
      stamp = std::max<int64_t>(stamp, std::atoll(name.c_str() + kFilePrefix.size()) + 1);
  }
  char host[256] = "localhost";
  ::gethostname(host, sizeof host - 1);
  return fmt::format("{}/{}{:010d}.{}.{}", folder, kFilePrefix, stamp, host, ::getpid());
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  static const std::array<uint32_t, 256> table = crc_table();
  uint32_t crc = 0xFFFFFFFFu;
  for (const char c : bytes) crc = (crc >> 8) ^ table[(crc ^ static_cast<uint8_t>(c)) & 0xFF];
  return ~crc;
}

uint32_t masked_crc32c(std::string_view bytes) {
  return std::rotr(crc32c(bytes), 15) + 0xa282ead8u;
}

std::string tfrecord(std::string_view payload) {
  const std::string length = fixed(static_cast<uint64_t>(payload.size()));
  return length + fixed(masked_crc32c(length)) + std::string(payload) +
         fixed(masked_crc32c(payload));
}

std::string version_event(double wall_time) {
  return double_field(1, wall_time) + bytes_field(3, "brain.Event:2");
}

std::string session_start_event(double wall_time, int64_t step) {
  return double_field(1, wall_time) + integer_field(2, step) + bytes_field(7, integer_field(1, 1));
}

std::string scalars_event(double wall_time, int64_t step, const TagValues& values) {
  std::string summary;
  for (const auto& [tag, value] : values)
    summary += bytes_field(1, bytes_field(1, tag) + float_field(2, value));
  return double_field(1, wall_time) + integer_field(2, step) + bytes_field(5, summary);
}

TensorBoardFile::TensorBoardFile(const std::string& folder, int64_t first_step)
    : file_(next_file_name(folder)) {
  file_.append(tfrecord(version_event(seconds_since_1970())));
  if (first_step > 0) file_.append(tfrecord(session_start_event(seconds_since_1970(), first_step)));
}

void TensorBoardFile::scalars(int64_t step, const TagValues& values) {
  if (!values.empty()) file_.append(tfrecord(scalars_event(seconds_since_1970(), step, values)));
}

}  // namespace cohort::core
