#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "core/base/error.h"
#include "core/io/safetensors.h"
#include "core/io/safetensors_header.h"
#include "core/io/strict_json.h"

namespace cohort::core {
namespace {

namespace fs = std::filesystem;
constexpr const char* kIndex = "model.safetensors.index.json";

using WeightMap = std::map<std::string, std::string>;  ///< Tensor to file.

/// Whether it names something within a folder, and can stand in a message.
bool is_file_name(const std::string& name) {
  constexpr size_t kLongest = 255;
  return !name.empty() && name.size() <= kLongest && name != "." && name != ".." &&
         std::all_of(name.begin(), name.end(), [](unsigned char c) {
           return c >= ' ' && c != 0x7f && c != '/';
         });
}

/// Throws InputError when the index is not what transformers writes.
WeightMap read_index(const std::string& path) {
  const auto json = read_strict_json(path);
  const auto map = json.is_object() ? json.find("weight_map") : json.end();
  COHORT_CHECK_INPUT(map != json.end() && map->is_object() && !map->empty(),
                     "{}: has no \"weight_map\" from tensor names to files",
                     path);
  WeightMap weights;
  for (const auto& [tensor, shard] : map->items()) {
    COHORT_CHECK_INPUT(shard.is_string() && is_file_name(shard.get_ref<const std::string&>()),
                       "{}: the file of tensor {} must be a name within the folder",
                       path,
                       in_quotes(tensor));
    weights[tensor] = shard;
  }
  return weights;
}

std::set<std::string> shard_names(const std::string& folder, const WeightMap& index) {
  std::set<std::string> names;
  for (const auto& [tensor, shard] : index) names.insert(shard);
  if (!names.empty()) return names;
  if (fs::exists(fs::path(folder) / "model.safetensors")) return {"model.safetensors"};
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename();
    if (name.rfind("model", 0) == 0 && entry.path().extension() == ".safetensors")
      names.insert(name);
  }
  return names;
}

/// Opens the shards; what cannot be opened becomes a fault.
void open_shards(const std::string& folder,
                 const std::set<std::string>& names,
                 SafetensorsFolder& out) {
  std::set<std::string> twice;
  for (const std::string& name : names) {
    try {
      out.files.emplace_back((fs::path(folder) / name).string());
    } catch (const InputError& error) {
      out.faults.push_back(error.what());
      continue;
    }
    const size_t file_idx = out.files.size() - 1;
    for (const auto& [tensor, entry] : out.files.back().entries()) {
      const auto [other, fresh] = out.file_of.emplace(tensor, file_idx);
      if (!fresh)
        out.faults.push_back(fmt::format("{}: tensor {} also stands in {}",
                                         out.files.back().path(),
                                         in_quotes(tensor),
                                         out.files[other->second].path()));
    }
  }
}

/// Tensors of the shards that the index does not have, and shards in the folder that it does not
/// name.
void check_complete(const std::string& folder,
                    const std::string& index_path,
                    const WeightMap& index,
                    SafetensorsFolder& out) {
  if (index.empty()) return;
  std::set<std::string> named;
  for (const auto& [tensor, shard] : index) named.insert(shard);
  for (const auto& [tensor, file_idx] : out.file_of)
    if (!index.contains(tensor))
      out.faults.push_back(fmt::format("{}: has no entry for tensor {}, which stands in {}",
                                       index_path,
                                       in_quotes(tensor),
                                       fs::path(out.files[file_idx].path()).filename().string()));
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename();
    // Shards as transformers names them; other files of the folder are no business of ours.
    if (name.starts_with("model-") && entry.path().extension() == ".safetensors" &&
        !named.contains(name))
      out.faults.push_back(fmt::format(
          "{}: has no entry for any tensor of {}, which is in the folder", index_path, name));
  }
}

void check_index(const std::string& index_path, const WeightMap& index, SafetensorsFolder& out) {
  std::map<std::string, size_t> opened;
  for (size_t i = 0; i < out.files.size(); ++i)
    opened[fs::path(out.files[i].path()).filename()] = i;
  for (const auto& [tensor, shard] : index) {
    const auto file = opened.find(shard);
    if (file == opened.end()) continue;  // Reported as a whole.
    if (out.files[file->second].has(tensor)) continue;
    const auto elsewhere = out.file_of.find(tensor);
    out.faults.push_back(fmt::format("{}: tensor {} is not in {}{}",
                                     index_path,
                                     in_quotes(tensor),
                                     shard,
                                     elsewhere == out.file_of.end()
                                         ? ", nor in any other shard"
                                         : " but in " + out.files[elsewhere->second].path()));
  }
}

}  // namespace

SafetensorsFolder open_safetensors_folder(const std::string& folder) {
  SafetensorsFolder out;
  const std::string index_path = (fs::path(folder) / kIndex).string();
  WeightMap index;
  try {
    if (fs::exists(index_path) && !fs::exists(fs::path(folder) / "model.safetensors"))
      index = read_index(index_path);
    const auto names = shard_names(folder, index);
    COHORT_CHECK_INPUT(!names.empty(), "{}: holds no model*.safetensors", folder);
    open_shards(folder, names, out);
  } catch (const InputError& error) {
    out.faults.push_back(error.what());
  } catch (const fs::filesystem_error& error) {
    out.faults.push_back(fmt::format("cannot read {}: {}", folder, error.code().message()));
  }
  check_index(index_path, index, out);
  check_complete(folder, index_path, index, out);
  return out;
}

std::map<std::string, at::Tensor> read_safetensors(const std::string& path) {
  std::map<std::string, at::Tensor> tensors;
  std::error_code ignored;
  if (!fs::is_directory(path, ignored)) {
    const SafetensorsFile file(path);
    for (const auto& [name, entry] : file.entries()) tensors.emplace(name, file.tensor(name));
    return tensors;
  }
  const SafetensorsFolder folder = open_safetensors_folder(path);
  COHORT_CHECK_INPUT(folder.faults.empty(), "{}", fmt::join(folder.faults, "; "));
  for (const auto& [name, file_idx] : folder.file_of)
    tensors.emplace(name, folder.files[file_idx].tensor(name));
  return tensors;
}

}  // namespace cohort::core
