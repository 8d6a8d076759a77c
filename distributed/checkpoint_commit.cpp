#include "distributed/checkpoint_commit.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "core/base/error.h"
#include "core/base/log.h"
#include "core/io/file.h"
#include "core/io/safetensors.h"
#include "core/io/xxh3.h"
#include "distributed/checkpoint_folder.h"

namespace cohort::distributed {
namespace {

namespace fs = std::filesystem;

std::string inside(const std::string& folder, const std::string& name) {
  return (fs::path(folder) / name).string();
}

/// Ranks race for the folder; whoever comes second finds it. Its parent is not made: when that is
/// gone, so is the run.
void make_folder(const std::string& path) {
  const int result = ::mkdir(path.c_str(), 0777);
  COHORT_CHECK(result == 0 || errno == EEXIST,
               "cannot make folder {}: {}",
               path,
               core::system_reason(errno));
}

int64_t numel_of(const std::vector<int64_t>& shape) {
  int64_t count = 1;
  for (const int64_t dim : shape) count *= dim;
  return count;
}

void check_slice(const CheckpointSlice& slice, bool whole) {
  const int64_t numel = numel_of(slice.shape);
  COHORT_CHECK(0 <= slice.begin && slice.begin <= slice.end && slice.end <= numel &&
                   slice.data.defined() && slice.data.numel() == slice.end - slice.begin,
               "slice [{}, {}) of tensor {} with {} elements was given {}",
               slice.begin,
               slice.end,
               slice.name,
               numel,
               slice.data.defined() ? slice.data.numel() : 0);
  COHORT_CHECK(!whole || slice.end - slice.begin == numel,
               "model tensor {} was given in part, [{}, {}) of {}",
               slice.name,
               slice.begin,
               slice.end,
               numel);
}

/// One shard file, if there is anything to put into it.
void write_shard(const std::string& folder,
                 const std::string& name,
                 std::vector<CheckpointSlice> slices,
                 bool whole_tensors,
                 Manifest& manifest) {
  for (const auto& slice : slices) check_slice(slice, whole_tensors);
  // A bucket's end may leave a rank nothing of a tensor. A tensor of no elements is another matter.
  std::erase_if(slices, [](const auto& slice) {
    return slice.begin == slice.end && numel_of(slice.shape) > 0;
  });
  if (slices.empty()) return;
  // Wide elements first, as the reference writes: each tensor then stands at a multiple of its own.
  std::stable_sort(slices.begin(), slices.end(), [](const auto& a, const auto& b) {
    const auto width = [](const auto& s) { return s.data.element_size(); };
    return width(a) != width(b) ? width(a) > width(b) : a.name < b.name;
  });
  std::vector<core::NamedTensor> tensors;
  for (const auto& slice : slices) {
    const at::Tensor data = slice.data.detach().to(at::kCPU).contiguous();
    if (whole_tensors)
      tensors.push_back({slice.name, data.view(slice.shape)});
    else
      tensors.push_back({fmt::format("{}@{}", slice.name, slice.begin), data.view({-1})});
  }
  const auto written = core::write_safetensors(inside(folder, name), tensors, {{"format", "pt"}});
  Manifest part;
  part.files[name] = {written.file_bytes, written.header_bytes, written.header_xxh3};
  for (size_t i = 0; i < slices.size(); ++i) {
    ManifestTensor tensor{slices[i].data.scalar_type(), slices[i].shape, {}};
    tensor.slices.push_back({name, slices[i].begin, slices[i].end, written.at[i], written.xxh3[i]});
    Manifest one;
    one.tensors[slices[i].name] = std::move(tensor);
    merge(part, one);
  }
  merge(manifest, part);
}

void write_text(const std::string& folder,
                const std::string& name,
                const std::string& content,
                Manifest& manifest) {
  COHORT_CHECK(!name.empty() && name.find('/') == std::string::npos,
               "'{}' is not a file name within a checkpoint",
               name);
  core::write_file(inside(folder, name), content);
  const auto bytes = static_cast<int64_t>(content.size());
  Manifest part;
  part.files[name] = {bytes, bytes, core::xxh3_hex(content.data(), content.size())};
  merge(manifest, part);
}

/// model.safetensors.index.json, by which transformers finds the shards.
void write_index(const std::string& folder, Manifest& manifest) {
  nlohmann::json weight_map = nlohmann::json::object();
  int64_t total = 0;
  for (const auto& [name, tensor] : manifest.tensors) {
    if (!tensor.is_model()) continue;
    weight_map[name] = tensor.slices.front().file;
    total += tensor.bytes(tensor.slices.front());
  }
  if (weight_map.empty()) return;
  const nlohmann::json index{{"metadata", {{"total_size", total}}},
                             {"weight_map", std::move(weight_map)}};
  write_text(folder, "model.safetensors.index.json", index.dump(1) + "\n", manifest);
}

}  // namespace

std::string write_shards(const std::string& folder,
                         CheckpointContent content,
                         int rank,
                         int ranks) {
  make_folder(folder);
  Manifest manifest;
  const auto name = [&](const char* kind) {
    return fmt::format("{}-{:05}-of-{:05}.safetensors", kind, rank + 1, ranks);
  };
  write_shard(folder, name("model"), std::move(content.model), true, manifest);
  write_shard(folder, name("optimizer"), std::move(content.optimizer), false, manifest);
  for (const auto& [file, text] : content.files) write_text(folder, file, text, manifest);
  return format_manifest(manifest);
}

void CheckpointCommit::prepare(int64_t step, nlohmann::json mesh, nlohmann::json state) {
  next_ = {step, std::move(mesh), std::move(state), {}, {}};
}

Manifest CheckpointCommit::collect(const std::vector<std::string>& reports) const {
  Manifest manifest = next_;
  std::string first_error;
  size_t errors = 0;
  for (size_t rank = 0; rank < reports.size(); ++rank) {
    const std::string& report = reports[rank];
    if (report[0] == '+') {
      merge(manifest, parse_part(std::string_view(report).substr(1), "a rank's report"));
    } else if (++errors == 1) {
      first_error = report.substr(1);
      if (reports.size() > 1) first_error = fmt::format("rank {}: {}", rank, first_error);
    }
  }
  COHORT_CHECK(errors == 0,
               "{}{}",
               first_error,
               errors > 1 ? fmt::format(" (and {} more ranks)", errors - 1) : "");
  return manifest;
}

void CheckpointCommit::check_present(const std::string& folder, const Manifest& manifest) const {
  for (const auto& [name, file] : manifest.files) {
    struct stat status {};
    const bool found = ::stat(inside(folder, name).c_str(), &status) == 0;
    COHORT_CHECK(
        found && status.st_size == file.bytes,
        "{} was written but rank 0 finds {}: checkpoints need a file system that all "
        "ranks share",
        inside(folder, name),
        found ? fmt::format("{} bytes of {}", status.st_size, file.bytes) : "no such file");
  }
}

void CheckpointCommit::run(const std::vector<std::string>& reports) {
  const std::string temporary = temporary_path(folder_, next_.step);
  try {
    Manifest manifest = collect(reports);
    write_index(temporary, manifest);
    check_consistent(manifest);
    check_present(temporary, manifest);
    core::write_file(inside(temporary, kManifestName), format_manifest(manifest));
    core::fsync_folder(temporary);
    put_in_place(folder_, next_.step);
  } catch (const std::exception&) {
    std::error_code ignored;
    fs::remove_all(temporary, ignored);
    throw;
  }
  std::erase(committed_, next_.step);
  committed_.push_back(next_.step);
  try {
    delete_older();
  } catch (const std::exception& error) {
    spdlog::warn("an old checkpoint could not be deleted: {}", error.what());
  }
}

void CheckpointCommit::delete_older() {
  if (keep_ <= 0) return;
  const auto present = checkpoints_in(folder_);
  // Newest first: what this run wrote, then what it found, as far as its files are all there.
  std::vector<int64_t> good, broken;
  for (auto step = committed_.rbegin(); step != committed_.rend(); ++step)
    if (std::any_of(present.begin(), present.end(), [&](auto& c) { return c.step == *step; }))
      good.push_back(*step);
  for (const auto& [step, path] : present) {
    // A later step that this run did not write was passed over when it resumed.
    if (step >= next_.step || std::count(committed_.begin(), committed_.end(), step)) continue;
    try {
      CheckpointReader reader(path);
      good.push_back(step);
    } catch (const InputError&) {
      broken.push_back(step);
    }
  }
  if (good.size() <= static_cast<size_t>(keep_)) return;
  const int64_t oldest_kept = good[static_cast<size_t>(keep_) - 1];
  for (size_t i = static_cast<size_t>(keep_); i < good.size(); ++i)
    delete_checkpoint(folder_, good[i]);
  for (const int64_t step : broken)
    if (step < oldest_kept) delete_checkpoint(folder_, step);
}

}  // namespace cohort::distributed
