#include <cmath>
#include <cstring>
#include <limits>
#include <map>

#include "core/metrics/metrics.h"
#include "core/metrics/tensorboard.h"
#include "tests/catch.h"
#include "tests/scratch_folder.h"

using namespace cohort;
using tests::ScratchFolder;

namespace {

template <class T>
T take(std::string_view& bytes) {
  REQUIRE(bytes.size() >= sizeof(T));
  T value;
  std::memcpy(&value, bytes.data(), sizeof value);
  bytes.remove_prefix(sizeof value);
  return value;
}

uint64_t take_varint(std::string_view& bytes) {
  uint64_t value = 0;
  for (int shift = 0;; shift += 7) {
    const auto byte = take<uint8_t>(bytes);
    value |= static_cast<uint64_t>(byte & 0x7F) << shift;
    if (byte < 0x80) return value;
  }
}

/// A protobuf message, decoded by the wire format alone: field number -> raw values.
using Message = std::multimap<uint32_t, std::string>;
Message decode(std::string_view bytes) {
  Message message;
  while (!bytes.empty()) {
    const uint64_t key = take_varint(bytes);
    size_t size = 0;
    std::string value;
    switch (key & 7) {
      case 0:
        value = std::to_string(take_varint(bytes));
        break;
      case 1:
        size = 8;
        break;
      case 2:
        size = take_varint(bytes);
        break;
      case 5:
        size = 4;
        break;
      default:
        FAIL("wire type " << (key & 7));
    }
    if ((key & 7) != 0) value = std::string(bytes.substr(0, size)), bytes.remove_prefix(size);
    message.emplace(static_cast<uint32_t>(key >> 3), value);
  }
  return message;
}

std::string only(const Message& message, uint32_t field) {
  REQUIRE(message.count(field) == 1);
  return message.find(field)->second;
}

template <class T>
T as(std::string_view bytes) {
  REQUIRE(bytes.size() == sizeof(T));
  return take<T>(bytes);
}

/// Payloads of a TFRecord file, both checksums checked.
std::vector<std::string> records(std::string_view file) {
  std::vector<std::string> payloads;
  while (!file.empty()) {
    const std::string_view length_bytes = file.substr(0, 8);
    const auto length = take<uint64_t>(file);
    CHECK(take<uint32_t>(file) == core::masked_crc32c(length_bytes));
    payloads.emplace_back(file.substr(0, length));
    file.remove_prefix(length);
    CHECK(take<uint32_t>(file) == core::masked_crc32c(payloads.back()));
  }
  return payloads;
}

}  // namespace

TEST_CASE("CRC-32C gives the published values", "[core-metrics]") {
  CHECK(core::crc32c("") == 0u);
  CHECK(core::crc32c("123456789") == 0xE3069283u);
  CHECK(core::crc32c(std::string(32, '\0')) == 0x8A9136AAu);    // RFC 3720, B.4
  CHECK(core::crc32c(std::string(32, '\xff')) == 0x62A8AB43u);  // RFC 3720, B.4
}

TEST_CASE("A TFRecord is length, masked CRC, payload, masked CRC", "[core-metrics]") {
  const std::string record = core::tfrecord("123456789");
  REQUIRE(record.size() == 9 + 16);
  CHECK(record.substr(0, 8) == std::string("\x09\0\0\0\0\0\0\0", 8));
  CHECK(record.substr(12, 9) == "123456789");
  // rotate_right(0xE3069283, 15) = 0x2507C60D, + 0xA282EAD8
  CHECK(as<uint32_t>(record.substr(21)) == 0xC78AB0E5u);
}

TEST_CASE("Events decode to what was written", "[core-metrics]") {
  const Message version = decode(core::version_event(12.5));
  CHECK(as<double>(only(version, 1)) == 12.5);
  CHECK(only(version, 3) == "brain.Event:2");

  const Message start = decode(core::session_start_event(1.0, 21));
  CHECK(only(start, 2) == "21");
  CHECK(only(decode(only(start, 7)), 1) == "1");

  const float inf = std::numeric_limits<float>::infinity();
  const Message event = decode(
      core::scalars_event(3.0, 1234567890123, {{"loss", 0.25f}, {"a/b", inf}, {"zero", 0.f}}));
  CHECK(only(event, 2) == "1234567890123");
  const Message summary = decode(only(event, 5));
  std::map<std::string, float> values;
  for (const auto& [field, bytes] : summary) {
    CHECK(field == 1);
    const Message value = decode(bytes);
    values[only(value, 1)] = as<float>(only(value, 2));
  }
  CHECK(values == std::map<std::string, float>{{"loss", 0.25f}, {"a/b", inf}, {"zero", 0.f}});
}

TEST_CASE("A run's event files hold every scalar, NaN too, and a resume says where it starts",
          "[core-metrics]") {
  ScratchFolder dir;
  core::RunLog(dir / "run", 10, -1).step(1, {{"loss", std::nan("")}, {"word", "not a number"}});
  core::RunLog(dir / "run", 10, 1).step(2, {{"loss", 2}});
  const auto files = dir.list("run/tensorboard");
  REQUIRE(files.size() == 2);
  CHECK(files[0].starts_with("events.out.tfevents."));

  const auto first = records(dir.read("run/tensorboard/" + files[0]));
  REQUIRE(first.size() == 2);
  const Message summary = decode(only(decode(first[1]), 5));
  CHECK(summary.size() == 1);
  CHECK(std::isnan(as<float>(only(decode(only(summary, 1)), 2))));

  const auto second = records(dir.read("run/tensorboard/" + files[1]));
  REQUIRE(second.size() == 3);
  CHECK(only(decode(second[1]), 2) == "2");  // session start: TensorBoard drops step 2 and later
  CHECK(decode(second[1]).count(7) == 1);
  CHECK(only(decode(second[2]), 2) == "2");
}
