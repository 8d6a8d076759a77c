#include "core/io/safetensors.h"

#include <algorithm>
#include <cstring>

#include "core/base/error.h"
#include "core/io/file.h"
#include "core/io/safetensors_header.h"
#include "core/io/xxh3.h"

namespace cohort::core {

struct SafetensorsFile::State {
  MappedFile file;
  SafetensorsHeader header;

  explicit State(const std::string& path)
      : file(path), header(parse_safetensors_header(file.text(), path)) {}

  const SafetensorsEntry& entry(const std::string& name) const {
    const auto found = header.entries.find(name);
    COHORT_CHECK_INPUT(
        found != header.entries.end(), "{}: has no tensor {}", file.path(), in_quotes(name));
    return found->second;
  }
};

SafetensorsFile::SafetensorsFile(const std::string& path) : state_(std::make_unique<State>(path)) {}
SafetensorsFile::~SafetensorsFile() = default;
SafetensorsFile::SafetensorsFile(SafetensorsFile&&) noexcept = default;

const std::string& SafetensorsFile::path() const { return state_->file.path(); }
const std::map<std::string, SafetensorsEntry>& SafetensorsFile::entries() const {
  return state_->header.entries;
}
const std::map<std::string, std::string>& SafetensorsFile::metadata() const {
  return state_->header.metadata;
}
bool SafetensorsFile::has(const std::string& name) const {
  return state_->header.entries.count(name) > 0;
}

at::Tensor SafetensorsFile::tensor(const std::string& name) const {
  const SafetensorsEntry& entry = state_->entry(name);
  const int64_t size =
      (entry.end - entry.begin) / static_cast<int64_t>(c10::elementSize(entry.dtype));
  return elements(name, 0, size).view(entry.shape);
}

at::Tensor SafetensorsFile::elements(const std::string& name, int64_t begin, int64_t end) const {
  const SafetensorsEntry& entry = state_->entry(name);
  const auto element = static_cast<int64_t>(c10::elementSize(entry.dtype));
  COHORT_CHECK(0 <= begin && begin <= end && end <= (entry.end - entry.begin) / element,
               "{}: elements [{}, {}) asked of tensor {}, which has {}",
               path(),
               begin,
               end,
               in_quotes(name),
               (entry.end - entry.begin) / element);
  at::Tensor out = at::empty({end - begin}, at::dtype(entry.dtype));
  const auto size = static_cast<size_t>((end - begin) * element);
  state_->file.read(state_->header.data_start + static_cast<size_t>(entry.begin + begin * element),
                    out.data_ptr(),
                    size);
  if (entry.dtype == at::kBool) {  // Any other byte is undefined behaviour once it is a bool.
    const auto* from = static_cast<const std::byte*>(out.const_data_ptr());
    COHORT_CHECK_INPUT(
        std::all_of(from, from + size, [](std::byte b) { return b <= std::byte{1}; }),
        "{}: tensor {} is BOOL and holds a byte other than 0 and 1",
        path(),
        in_quotes(name));
  }
  return out;
}

std::pair<const std::byte*, size_t> SafetensorsFile::bytes(const std::string& name) const {
  const SafetensorsEntry& entry = state_->entry(name);
  return {state_->file.data() + state_->header.data_start + entry.begin,
          static_cast<size_t>(entry.end - entry.begin)};
}

SafetensorsWritten write_safetensors(const std::string& path,
                                     const std::vector<NamedTensor>& tensors,
                                     const std::map<std::string, std::string>& metadata) {
  std::vector<SafetensorsSpec> specs;
  for (const auto& [name, value] : tensors) {
    COHORT_CHECK(value.is_contiguous() && value.device().is_cpu(),
                 "{}: tensor {} is not contiguous in the CPU's memory",
                 path,
                 in_quotes(name));
    specs.push_back({name, value.scalar_type(), value.sizes().vec()});
  }
  return write_safetensors(
      path, specs, [&tensors](size_t i) { return tensors[i].value; }, metadata);
}

SafetensorsWritten write_safetensors(const std::string& path,
                                     const std::vector<SafetensorsSpec>& specs,
                                     const std::function<at::Tensor(size_t)>& tensor,
                                     const std::map<std::string, std::string>& metadata) {
  // Small enough to stay in a core's cache between the checksum and the kernel's copy.
  constexpr size_t kPiece = 1 << 20;
  const std::string header = format_safetensors_header(specs, metadata, path);
  SafetensorsWritten written;
  written.header_bytes = written.file_bytes = static_cast<int64_t>(header.size());
  written.header_xxh3 = xxh3_hex(header.data(), header.size());
  FileWriter file(path);
  file.write(header.data(), header.size());
  for (size_t i = 0; i < specs.size(); ++i) {
    const at::Tensor value = tensor(i);
    COHORT_CHECK(value.is_contiguous() && value.scalar_type() == specs[i].dtype &&
                     value.sizes() == at::IntArrayRef(specs[i].shape),
                 "{}: tensor {} is not what was announced",
                 path,
                 in_quotes(specs[i].name));
    Xxh3 checksum;
    const auto* data = static_cast<const char*>(value.const_data_ptr());
    for (size_t at = 0; at < value.nbytes(); at += kPiece) {
      const size_t size = std::min(kPiece, value.nbytes() - at);
      checksum.update(data + at, size);
      file.write(data + at, size);
    }
    written.at.push_back(written.file_bytes);
    written.xxh3.push_back(checksum.hex());
    written.file_bytes += static_cast<int64_t>(value.nbytes());
  }
  file.finish();
  return written;
}

}  // namespace cohort::core
