// What tells one model folder's weights from another's.
#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/io/file.h"
#include "core/io/xxh3.h"
#include "distributed/checkpoint_manifest.h"
#include "rl/model_folder.h"

namespace cohort::rl {
namespace {

namespace fs = std::filesystem;

std::string hash_of(const std::string& path) {
  constexpr size_t kPiece = size_t{64} << 20;
  const core::MappedFile file(path);
  core::Xxh3 hash;
  for (size_t at = 0; at < file.size(); at += kPiece) {
    const size_t size = std::min(kPiece, file.size() - at);
    hash.update(file.data() + at, size);
    file.release(file.data() + at, size);
  }
  return hash.hex();
}

/// Names within the folder, in order.
std::vector<std::string> files_of(const ModelFolder& folder) {
  std::vector<std::string> names{"config.json"};
  if (folder.kind == ModelFolder::Kind::kCheckpoint) {
    names.emplace_back(distributed::kManifestName);
    return names;
  }
  for (const auto& entry : fs::directory_iterator(folder.path))
    if (entry.path().extension() == ".safetensors") names.push_back(entry.path().filename());
  std::sort(names.begin() + 1, names.end());
  return names;
}

}  // namespace

std::string weights_xxh3(const ModelFolder& folder, const distributed::Mesh& mesh) {
  const std::vector<std::string> names = files_of(folder);
  nlohmann::ordered_json mine = nlohmann::ordered_json::object();
  for (size_t i = mesh.shape.rank; i < names.size(); i += mesh.shape.world)
    mine[names[i]] = hash_of(folder.path + "/" + names[i]);
  nlohmann::ordered_json all = nlohmann::ordered_json::object();
  for (const std::string& text : mesh.world->all_gather_text(mine.dump()))
    all.update(nlohmann::ordered_json::parse(text));
  std::string lines;
  for (const std::string& name : names)
    lines += name + " " + all.at(name).get<std::string>() + "\n";
  return core::xxh3_hex(lines.data(), lines.size());
}

}  // namespace cohort::rl
