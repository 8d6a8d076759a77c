// manifest.json of a checkpoint: which file holds which slice of which tensor, and the xxh3 of
// every byte. Each file is one checked head (the safetensors header; for other files the whole
// file) that is followed by slices without a gap; the manifest's text carries its own xxh3.
#pragma once
#include <ATen/ATen.h>

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace cohort::distributed {

inline constexpr const char* kManifestName = "manifest.json";

struct ManifestSlice {
  std::string file;
  int64_t begin = 0, end = 0;  ///< Elements of the flattened tensor.
  int64_t at = 0;              ///< First byte in the file.
  std::string xxh3;            ///< 16 hex digits, of the slice's bytes.
};

struct ManifestTensor {
  at::ScalarType dtype = at::kFloat;
  std::vector<int64_t> shape;
  std::vector<ManifestSlice> slices;  ///< By begin; together they cover the tensor once.

  int64_t numel() const;
  int64_t bytes(const ManifestSlice& slice) const;
  /// Whether it stands in a model shard, not in an optimizer shard.
  bool is_model() const;
};

struct ManifestFile {
  int64_t bytes = 0;
  int64_t head_bytes = 0;  ///< Of the header; all of a file that is no shard.
  std::string xxh3;        ///< Of these.
};

struct Manifest {
  int64_t step = 0;
  nlohmann::json mesh = nlohmann::json::object();  ///< world, dp, ep, pp of the writer.
  nlohmann::json state;
  std::map<std::string, ManifestFile> files;  ///< Without the manifest itself.
  std::map<std::string, ManifestTensor> tensors;
};

/// Adds one rank's files and slices. Throws Error when they contradict what is there.
void merge(Manifest& into, const Manifest& part);

/// Throws Error unless slices cover every tensor exactly once and tile every file.
void check_consistent(const Manifest& manifest);

/// The file's text. Throws Error when the state holds text that is not UTF-8.
std::string format_manifest(const Manifest& manifest);

/// Throws InputError that begins with `path`: damaged (its own xxh3), of another version, or at
/// odds with itself.
Manifest parse_manifest(std::string_view text, const std::string& path);

/// The same for what one rank wrote, which covers no tensor and need not.
Manifest parse_part(std::string_view text, const std::string& source);

}  // namespace cohort::distributed
