// A folder of its own for one test, removed with it.
#pragma once
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

namespace cohort::tests {

inline std::string read_bytes(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline void write_bytes(const std::string& path, const std::string& content) {
  std::ofstream(path, std::ios::binary) << content;
}

/// In memory where there is such a place: hundreds of fsyncs take their time on a busy disk.
struct ScratchFolder {
  std::string path;

  ScratchFolder() {
    for (const std::filesystem::path& parent :
         {std::filesystem::path("/dev/shm"), std::filesystem::temp_directory_path()}) {
      path = (parent / "cohort_test_XXXXXX").string();
      if (::mkdtemp(path.data())) return;
    }
    throw std::runtime_error("no place for a scratch folder");
  }
  ~ScratchFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;

  std::string operator/(const std::string& name) const { return path + "/" + name; }
  /// Writes a file, with the folders it lies in; returns its path.
  std::string write(const std::string& name, const std::string& content) const {
    const std::filesystem::path file = *this / name;
    std::filesystem::create_directories(file.parent_path());
    write_bytes(file.string(), content);
    return file.string();
  }
  std::string read(const std::string& name) const { return read_bytes(*this / name); }
  /// Sorted names in the sub-folder `name`.
  std::vector<std::string> list(const std::string& name) const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(*this / name))
      names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
  }
};

}  // namespace cohort::tests
