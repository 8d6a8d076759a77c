// safetensors (8-byte little-endian header length, JSON header, raw row-major data), as strict as
// the reference: header at most 100 MB of UTF-8 JSON that begins with '{', offsets contiguous, in
// range and of the size that dtype and shape say without overflow, no duplicate key, metadata of
// text only. Data need not be aligned to its elements. dtypes: F64 F32 F16 BF16 I64 I32 I16 I8 U64
// U32 U16 U8 BOOL F8_E4M3 F8_E5M2 F8_E8M0.
#pragma once
#include <ATen/ATen.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace cohort::core {

struct SafetensorsEntry {
  at::ScalarType dtype;
  std::vector<int64_t> shape;
  int64_t begin, end;  ///< Bytes, from the start of the data section.
};

/// "F32" for kFloat and so on. Throws Error for a dtype that the format does not have.
std::string safetensors_dtype_name(at::ScalarType dtype);
std::optional<at::ScalarType> safetensors_dtype(std::string_view name);

/// A file opened for reading through mmap. Throws InputError naming the file and what is wrong with
/// it.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::string& path);
  ~SafetensorsFile();
  SafetensorsFile(SafetensorsFile&&) noexcept;

  const std::string& path() const;
  const std::map<std::string, SafetensorsEntry>& entries() const;
  const std::map<std::string, std::string>& metadata() const;
  bool has(const std::string& name) const;
  /// A copy in memory of the whole tensor, in the file's dtype and shape.
  at::Tensor tensor(const std::string& name) const;
  /// A copy of elements [begin, end) of the flattened tensor. Nothing else of the file stays in
  /// memory.
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

/// What was written, so that a checksum of every byte can be kept elsewhere. xxh3: 16 hex digits.
struct SafetensorsWritten {
  int64_t file_bytes = 0;
  int64_t header_bytes = 0;       ///< The length field, the JSON and its padding.
  std::string header_xxh3;        ///< Of these bytes.
  std::vector<int64_t> at;        ///< Each tensor's first byte in the file, in the given order.
  std::vector<std::string> xxh3;  ///< Of each tensor's bytes.
};

/// Writes tensors in the given order to `path` and fsyncs it. Throws Error with the system's reason
/// (a full disk, ...); the unfinished file is removed then.
SafetensorsWritten write_safetensors(const std::string& path,
                                     const std::vector<NamedTensor>& tensors,
                                     const std::map<std::string, std::string>& metadata = {});

/// What a tensor to be written will be.
struct SafetensorsSpec {
  std::string name;
  at::ScalarType dtype;
  std::vector<int64_t> shape;
};

/// The same file from tensors that are made one after the other: `tensor(i)` gives what specs[i]
/// says, and is dropped once it is written.
SafetensorsWritten write_safetensors(const std::string& path,
                                     const std::vector<SafetensorsSpec>& specs,
                                     const std::function<at::Tensor(size_t)>& tensor,
                                     const std::map<std::string, std::string>& metadata = {});

/// The safetensors files that make up a model folder, as transformers picks them:
/// model.safetensors, else those that model.safetensors.index.json names, else model*.safetensors.
struct SafetensorsFolder {
  std::vector<SafetensorsFile> files;
  std::map<std::string, size_t> file_of;  ///< Tensor name to position in `files`.
  std::vector<std::string> faults;        ///< One line each; all that could be found.
};
SafetensorsFolder open_safetensors_folder(const std::string& folder);

/// All tensors of a file, or of a folder with model*.safetensors and perhaps
/// model.safetensors.index.json. Throws InputError naming every shard that is missing or broken,
/// every index entry that no shard holds and every tensor that stands in two shards.
std::map<std::string, at::Tensor> read_safetensors(const std::string& path);

}  // namespace cohort::core
