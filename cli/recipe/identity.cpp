#include "cli/recipe/identity.h"

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>

#include "core/base/error.h"
#include "core/io/file.h"
#include "core/io/xxh3.h"

namespace cohort::cli {
namespace {

namespace fs = std::filesystem;

/// Written by every run, and no part of what it made.
bool is_record(const fs::path& relative) {
  return *relative.begin() == "tensorboard" || relative == "report.html";
}

/// The newest complete checkpoint of a run; empty where there is none.
fs::path newest_checkpoint(const fs::path& folder) {
  std::string newest;
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(folder / "checkpoints", none)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("step-")) newest = std::max(newest, name);
  }
  return newest.empty() ? fs::path() : folder / "checkpoints" / newest;
}

/// What counts of `path`, sorted.
std::vector<fs::path> files_of(const fs::path& path) {
  std::error_code none;
  if (fs::is_regular_file(path, none)) return {path};
  if (!fs::is_directory(path, none)) return {};
  const fs::path checkpoint = newest_checkpoint(path);
  const fs::path root = checkpoint.empty() ? path : checkpoint;
  std::vector<fs::path> files;
  for (const auto& entry : fs::recursive_directory_iterator(root))
    if (entry.is_regular_file() && !is_record(entry.path().lexically_relative(root)))
      files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

void add(core::Xxh3& hash, const std::string& text) {
  hash.update(text.data(), text.size());
  hash.update("\0", 1);
}

std::string listing_of(const fs::path& path, const std::vector<fs::path>& files) {
  core::Xxh3 hash;
  for (const fs::path& file : files) {
    struct stat status {};
    COHORT_CHECK(stat(file.c_str(), &status) == 0, "{}: cannot be looked at", file.string());
    add(hash,
        fmt::format("{} {} {}.{:09}",
                    file.lexically_relative(path).string(),
                    status.st_size,
                    status.st_mtim.tv_sec,
                    status.st_mtim.tv_nsec));
  }
  return hash.hex();
}

std::string digest_of(const fs::path& path, const std::vector<fs::path>& files) {
  // A manifest speaks for the tensors beside it.
  const bool has_manifest = std::any_of(files.begin(), files.end(), [](const fs::path& file) {
    return file.filename() == "manifest.json";
  });
  core::Xxh3 hash;
  for (const fs::path& file : files) {
    if (has_manifest && file.extension() == ".safetensors") continue;
    const core::MappedFile bytes(file.string());
    add(hash, file.lexically_relative(path).string());
    add(hash, std::to_string(bytes.size()));
    hash.update(bytes.data(), bytes.size());
  }
  return hash.hex();
}

bool lies_below(const std::string& path, const std::string& folder) {
  std::error_code none;
  const fs::path relative =
      fs::weakly_canonical(path, none).lexically_relative(fs::weakly_canonical(folder, none));
  return !relative.empty() && *relative.begin() != "..";
}

}  // namespace

Identity identify(const std::string& path, const Identity& earlier) {
  const auto files = files_of(path);
  if (files.empty()) return {};
  Identity now{earlier.digest, listing_of(path, files)};
  if (now.listing != earlier.listing || now.digest.empty()) now.digest = digest_of(path, files);
  return now;
}

std::vector<std::string> input_files(const Recipe& recipe, const Stage& stage) {
  std::set<std::string> files;
  std::error_code none;
  for (const std::string& word : stage.command)
    for (const std::string& path : {word, word.substr(word.find('=') + 1)})
      if (!path.empty() && fs::is_regular_file(path, none) && !lies_below(path, recipe.dir))
        files.insert(path);
  for (const std::string& path : stage.inputs) {
    COHORT_CHECK_INPUT(fs::exists(path, none) || lies_below(path, recipe.dir),
                       "{}: stage {}: its input {} is not there",
                       recipe.file,
                       stage.name,
                       path);
    if (!lies_below(path, recipe.dir)) files.insert(path);
  }
  return {files.begin(), files.end()};
}

std::string key_of(const Recipe& recipe,
                   const Stage& stage,
                   const std::map<std::string, Identity>& outputs) {
  core::Xxh3 hash;
  for (const std::string& word : stage.command) add(hash, word);
  for (const std::string& file : input_files(recipe, stage)) {
    add(hash, file);
    add(hash, identify(file).digest);
  }
  for (const size_t index : stage.after) {
    add(hash, recipe.stages[index].name);
    add(hash, outputs.at(recipe.stages[index].name).digest);
  }
  return hash.hex();
}

}  // namespace cohort::cli
