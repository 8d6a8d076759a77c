#include <algorithm>
#include <cstring>
#include <filesystem>
#include <set>

#include "core/base/error.h"
#include "core/base/log.h"
#include "core/io/file.h"
#include "core/io/xxh3.h"
#include "distributed/checkpoint.h"
#include "distributed/checkpoint_folder.h"
#include "distributed/checkpoint_manifest.h"

namespace cohort::distributed {
namespace {

namespace fs = std::filesystem;

/// A slice with the tensor it belongs to.
struct HeldSlice {
  const std::string* name;
  const ManifestTensor* tensor;
  const ManifestSlice* slice;

  int64_t end_byte() const { return slice->at + tensor->bytes(*slice); }
};

/// What each file holds, by position.
std::map<std::string, std::vector<HeldSlice>> slices_by_file(const Manifest& manifest) {
  std::map<std::string, std::vector<HeldSlice>> held;
  for (const auto& [name, tensor] : manifest.tensors)
    for (const auto& slice : tensor.slices) held[slice.file].push_back({&name, &tensor, &slice});
  for (auto& [file, slices] : held)
    std::sort(slices.begin(), slices.end(), [](const auto& a, const auto& b) {
      return a.slice->at < b.slice->at;
    });
  return held;
}

Manifest read_manifest(const std::string& folder) {
  const std::string path = (fs::path(folder) / kManifestName).string();
  const core::MappedFile file(path);
  return parse_manifest(file.text(), path);
}

std::string damage(const std::string& path,
                   const std::string& tensor,
                   const ManifestSlice& slice,
                   const std::string& found) {
  return fmt::format("{}: tensor {}, elements [{}, {}): damaged, xxh3 {} instead of {}",
                     path,
                     tensor,
                     slice.begin,
                     slice.end,
                     found,
                     slice.xxh3);
}

/// "3 tensors from model.norm.weight on" for a list of slices.
std::string listed(const std::vector<HeldSlice>& slices, size_t first) {
  const size_t count = slices.size() - first;
  return count == 1 ? "tensor " + *slices[first].name
                    : fmt::format("tensor {} and {} more", *slices[first].name, count - 1);
}

/// A fault when the file is missing or of another size; no tensor is read.
std::optional<std::string> size_fault(const std::string& folder,
                                      const std::string& name,
                                      const ManifestFile& file,
                                      const std::vector<HeldSlice>& slices) {
  const std::string path = (fs::path(folder) / name).string();
  std::error_code error;
  const auto status = fs::status(path, error);
  if (!fs::is_regular_file(status))
    return fmt::format("{}: {}{}",
                       path,
                       fs::exists(status) ? "not a regular file" : "missing",
                       slices.empty() ? "" : "; it should hold " + listed(slices, 0));
  const auto size = static_cast<int64_t>(fs::file_size(path, error));
  if (error) return fmt::format("{}: {}", path, error.message());
  if (size > file.bytes)
    return fmt::format(
        "{}: {} bytes longer than the {} it should have", path, size - file.bytes, file.bytes);
  if (size == file.bytes) return std::nullopt;
  const auto lost = std::find_if(
      slices.begin(), slices.end(), [&](const auto& held) { return held.end_byte() > size; });
  return fmt::format(
      "{}: cut short, {} of {} bytes{}",
      path,
      size,
      file.bytes,
      lost == slices.end()
          ? ""
          : "; incomplete: " + listed(slices, static_cast<size_t>(lost - slices.begin())));
}

/// Every fault of one file, as far as its bytes are there.
void check_file(const std::string& folder,
                const std::string& name,
                const ManifestFile& file,
                const std::vector<HeldSlice>& slices,
                std::vector<std::string>& faults) {
  if (const auto fault = size_fault(folder, name, file, slices)) faults.push_back(*fault);
  const std::string path = (fs::path(folder) / name).string();
  try {
    if (!fs::is_regular_file(path)) return;
    const core::MappedFile mapped(path);
    const auto present = static_cast<int64_t>(mapped.size());
    if (file.head_bytes <= present) {
      const std::string found = core::xxh3_hex(mapped.data(), file.head_bytes);
      if (found != file.xxh3)
        faults.push_back(fmt::format("{}: {}damaged, xxh3 {} instead of {}",
                                     path,
                                     slices.empty() ? "" : "header: ",
                                     found,
                                     file.xxh3));
    }
    for (const auto& held : slices) {
      if (held.end_byte() > present) break;
      const std::string found =
          core::xxh3_hex(mapped.data() + held.slice->at, held.tensor->bytes(*held.slice));
      if (found != held.slice->xxh3) faults.push_back(damage(path, *held.name, *held.slice, found));
    }
  } catch (const std::exception& error) {
    faults.push_back(error.what());
  }
}

}  // namespace

std::vector<std::string> verify_checkpoint(const std::string& folder, int part, int parts) {
  std::vector<std::string> faults;
  Manifest manifest;
  try {
    manifest = read_manifest(folder);
  } catch (const std::exception& error) {
    return {error.what()};
  }
  auto held = slices_by_file(manifest);
  int file_idx = 0;
  for (const auto& [name, file] : manifest.files)
    if (file_idx++ % parts == part) check_file(folder, name, file, held[name], faults);
  return faults;
}

struct CheckpointReader::State {
  std::string folder;
  Manifest manifest;
  std::map<std::string, core::MappedFile> files;
  std::map<const ManifestSlice*, std::string> verdicts;  ///< Empty: good; else the damage.

  const ManifestTensor& tensor(const std::string& name) const {
    const auto found = manifest.tensors.find(name);
    COHORT_CHECK_INPUT(
        found != manifest.tensors.end(), "checkpoint {} has no tensor {}", folder, name);
    return found->second;
  }

  const core::MappedFile& file(const std::string& name) {
    auto found = files.find(name);
    if (found == files.end()) {
      core::MappedFile mapped((fs::path(folder) / name).string());
      const int64_t due = manifest.files.at(name).bytes;
      COHORT_CHECK_INPUT(mapped.size() == static_cast<size_t>(due),
                         "{}: {} bytes instead of {}",
                         mapped.path(),
                         mapped.size(),
                         due);
      found = files.emplace(name, std::move(mapped)).first;
    }
    return found->second;
  }

  /// First byte of a slice that was checked.
  const std::byte* checked(const std::string& name,
                           const ManifestTensor& tensor,
                           const ManifestSlice& slice) {
    const core::MappedFile& mapped = file(slice.file);
    const std::byte* data = mapped.data() + slice.at;
    auto verdict = verdicts.find(&slice);
    if (verdict == verdicts.end()) {
      const std::string found = core::xxh3_hex(data, tensor.bytes(slice));
      const bool good = found == slice.xxh3;
      mapped.release(data, static_cast<size_t>(tensor.bytes(slice)));
      verdict =
          verdicts.emplace(&slice, good ? "" : damage(mapped.path(), name, slice, found)).first;
    }
    COHORT_CHECK_INPUT(verdict->second.empty(), "{}", verdict->second);
    return data;
  }
};

CheckpointReader::CheckpointReader(const std::string& folder) : state_(std::make_unique<State>()) {
  state_->folder = folder;
  state_->manifest = read_manifest(folder);
  auto held = slices_by_file(state_->manifest);
  std::vector<std::string> faults;
  for (const auto& [name, file] : state_->manifest.files)
    if (const auto fault = size_fault(folder, name, file, held[name])) faults.push_back(*fault);
  COHORT_CHECK_INPUT(faults.empty(), "{}", fmt::join(faults, "; "));
}
CheckpointReader::~CheckpointReader() = default;
CheckpointReader::CheckpointReader(CheckpointReader&&) noexcept = default;

const nlohmann::json& CheckpointReader::state() const { return state_->manifest.state; }

std::vector<std::string> CheckpointReader::names() const {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : state_->manifest.tensors) names.push_back(name);
  return names;
}

std::vector<std::string> CheckpointReader::model_names() const {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : state_->manifest.tensors)
    if (tensor.is_model()) names.push_back(name);
  return names;
}

at::ScalarType CheckpointReader::dtype(const std::string& name) const {
  return state_->tensor(name).dtype;
}

bool CheckpointReader::has(const std::string& name) const {
  return state_->manifest.tensors.count(name) > 0;
}

std::vector<int64_t> CheckpointReader::shape(const std::string& name) const {
  return state_->tensor(name).shape;
}

at::Tensor CheckpointReader::elements(const std::string& name,
                                      int64_t begin,
                                      int64_t end,
                                      at::ScalarType dtype) const {
  const ManifestTensor& tensor = state_->tensor(name);
  COHORT_CHECK(0 <= begin && begin <= end && end <= tensor.numel(),
               "elements [{}, {}) asked of tensor {}, which has {}",
               begin,
               end,
               name,
               tensor.numel());
  const auto element = static_cast<int64_t>(c10::elementSize(tensor.dtype));
  at::NoGradGuard no_grad;
  at::Tensor out = at::empty({end - begin}, at::dtype(dtype));
  for (const auto& slice : tensor.slices) {
    const int64_t from = std::max(begin, slice.begin), to = std::min(end, slice.end);
    if (from >= to) continue;
    const std::byte* data = state_->checked(name, tensor, slice) + (from - slice.begin) * element;
    const at::Tensor target = out.narrow(0, from - begin, to - from);
    // Through memcpy: a slice need not stand at a multiple of its element size.
    const at::Tensor raw =
        dtype == tensor.dtype ? target : at::empty({to - from}, at::dtype(tensor.dtype));
    const auto size = static_cast<size_t>((to - from) * element);
    std::memcpy(raw.data_ptr(), data, size);
    state_->files.at(slice.file).release(data, size);
    if (dtype != tensor.dtype) target.copy_(raw);
  }
  return out;
}

at::Tensor CheckpointReader::tensor(const std::string& name) const {
  const ManifestTensor& tensor = state_->tensor(name);
  return elements(name, 0, tensor.numel(), tensor.dtype).view(tensor.shape);
}

std::vector<std::string> CheckpointReader::verify() const {
  return verify_checkpoint(state_->folder);
}

nlohmann::json CheckpointReader::manifest() const {
  return nlohmann::json::parse(format_manifest(state_->manifest));
}

std::optional<std::string> newest_good_checkpoint(const std::string& folder, const Mesh& mesh) {
  Communicator& world = *mesh.world;
  nlohmann::json listing;  // Rank 0's: another rank may see the folder at another moment.
  if (world.rank() == 0) try {
      if (fs::is_directory(folder)) restore_replaced(folder);
      listing["paths"] = nlohmann::json::array();
      for (const auto& checkpoint : checkpoints_in(folder))
        listing["paths"].push_back(checkpoint.path);
    } catch (const std::exception& error) {
      listing = {{"error", error.what()}};
    }
  listing = nlohmann::json::parse(world.all_gather_text(listing.dump())[0]);
  COHORT_CHECK_INPUT(!listing.contains("error"), "{}", listing["error"].get<std::string>());

  std::string newest_fault;
  for (const auto& path : listing["paths"]) {
    const auto mine = verify_checkpoint(path, world.rank(), world.size());
    std::set<std::string> faults;
    for (const auto& text : world.all_gather_text(
             nlohmann::json(mine).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)))
      for (const auto& fault : nlohmann::json::parse(text)) faults.insert(fault);
    if (faults.empty()) return path.get<std::string>();
    if (newest_fault.empty()) newest_fault = *faults.begin();
    if (world.rank() == 0)
      spdlog::warn(
          "passes over checkpoint {}: {}{}",
          path.get<std::string>(),
          *faults.begin(),
          faults.size() > 1 ? fmt::format(" (and {} more faults)", faults.size() - 1) : "");
  }
  COHORT_CHECK_INPUT(listing["paths"].empty(),
                     "{}: none of its {} checkpoints is good; in the newest: {}",
                     folder,
                     listing["paths"].size(),
                     newest_fault);
  return std::nullopt;
}

}  // namespace cohort::distributed
