// safetensors (8-byte little-endian header length, JSON header, raw row-major data), as strict as
// the reference: header at most 100 MB, offsets contiguous, in range and of the size that dtype and
// shape say, no duplicate key.
#pragma once
#include <ATen/ATen.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

namespace cohort::core {

struct SafetensorsEntry {
  at::ScalarType dtype;
  std::vector<int64_t> shape;
  int64_t begin, end;  ///< Bytes, from the start of the data section.
};

/// A file opened for reading through mmap. Throws InputError naming the file and what is wrong with
/// it.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::string& path);
  ~SafetensorsFile();
  SafetensorsFile(SafetensorsFile&&) noexcept;

  const std::map<std::string, SafetensorsEntry>& entries() const;
  const std::map<std::string, std::string>& metadata() const;
  bool has(const std::string& name) const;
  /// A copy in memory of the whole tensor, in the file's dtype and shape.
  at::Tensor tensor(const std::string& name) const;
  /// A copy of elements [begin, end) of the flattened tensor.
  at::Tensor elements(const std::string& name, int64_t begin, int64_t end) const;
  /// The raw bytes of a tensor, for checksums.
  std::pair<const std::byte*, size_t> bytes(const std::string& name) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

struct NamedTensor {
  std::string name;
  at::Tensor value;  ///< Contiguous, CPU.
};

/// Writes tensors in the given order to `path` and fsyncs it. Throws Error with the system's reason
/// (a full disk, ...).
void write_safetensors(const std::string& path,
                       const std::vector<NamedTensor>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

/// All tensors of a file, or of a folder with model*.safetensors and perhaps
/// model.safetensors.index.json.
std::map<std::string, at::Tensor> read_safetensors(const std::string& path);

}  // namespace cohort::core
