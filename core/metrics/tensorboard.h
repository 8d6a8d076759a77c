// TensorBoard event files, written without TensorFlow or protobuf.
//
// A file is a sequence of TFRecords, each holding one serialised `Event`:
//
//   uint64 length | uint32 masked crc32c(length) | bytes | uint32 masked crc32c(bytes)   little
//   endian masked(crc) = rotate_right(crc, 15) + 0xa282ead8
//
// and of the protobuf messages only these fields (tensorboard/compat/proto/{event,summary}.proto):
//
//   Event      { double wall_time = 1; int64 step = 2; string file_version = 3; Summary summary =
//   5;
//                SessionLog session_log = 7; }
//   Summary    { repeated Value value = 1; }   Value { string tag = 1; float simple_value = 2; }
//   SessionLog { enum status = 1; }            START = 1
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/metrics/append_file.h"

namespace cohort::core {

/// CRC-32C (Castagnoli, reflected polynomial 0x82F63B78): crc32c("123456789") = 0xE3069283.
uint32_t crc32c(std::string_view bytes);
/// The rotated and offset CRC that TFRecords store, so that a record of records checks too.
uint32_t masked_crc32c(std::string_view bytes);
/// `payload` framed as one TFRecord: 16 bytes longer.
std::string tfrecord(std::string_view payload);

using TagValues = std::vector<std::pair<std::string, float>>;

/// Serialised `Event`s. `wall_time` is in seconds since 1970.
std::string version_event(double wall_time);
std::string session_start_event(double wall_time, int64_t step);
std::string scalars_event(double wall_time, int64_t step, const TagValues& values);

/// One events.out.tfevents.* file in `folder` (made if missing). Its name sorts behind those
/// already there, which is the order in which TensorBoard reads them.
class TensorBoardFile {
 public:
  /// first_step > 0: TensorBoard drops what earlier files say of that step and later ones.
  TensorBoardFile(const std::string& folder, int64_t first_step);
  /// NaN and infinities are kept: TensorBoard shows them as such.
  void scalars(int64_t step, const TagValues& values);

 private:
  AppendFile file_;
};

}  // namespace cohort::core
