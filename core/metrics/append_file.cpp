#include "core/metrics/append_file.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/base/error.h"

namespace cohort::core {

AppendFile::AppendFile(std::string path) : path_(std::move(path)) {
  descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  COHORT_CHECK_INPUT(descriptor_ >= 0,
                     "{}: cannot be written ({}); run.dir must be a folder this user may write to",
                     path_,
                     std::strerror(errno));
}

AppendFile::~AppendFile() { ::close(descriptor_); }

void AppendFile::append(std::string_view record) {
  struct stat before {};
  const bool regular = ::fstat(descriptor_, &before) == 0 && S_ISREG(before.st_mode);
  for (std::string_view rest = record; !rest.empty();) {
    const ssize_t written = ::write(descriptor_, rest.data(), rest.size());
    if (written >= 0) {
      rest.remove_prefix(static_cast<size_t>(written));
      continue;
    }
    if (errno == EINTR) continue;
    const int reason = errno;
    const bool undone = regular && ::ftruncate(descriptor_, before.st_size) == 0;
    if (!warned_)
      spdlog::warn("{}: cannot be written ({}); training goes on, its lines are lost{}",
                   path_,
                   std::strerror(reason),
                   undone || rest.size() == record.size() ? "" : ", the last one is torn");
    warned_ = true;
    return;
  }
}

int64_t step_of_line(std::string_view line) {
  // Our own lines begin with the step and are told by their ends; anything else is parsed.
  constexpr std::string_view kStart = "{\"step\":";
  if (line.starts_with(kStart) && line.ends_with('}')) {
    int64_t step = -1;
    const char* end = line.data() + line.size();
    const auto [stop, error] = std::from_chars(line.data() + kStart.size(), end, step);
    if (error == std::errc() && (*stop == ',' || *stop == '}') && step >= 0) return step;
  }
  const auto object = nlohmann::json::parse(line, nullptr, false);
  if (!object.is_object()) return -1;
  const auto step = object.find("step");
  return step != object.end() && step->is_number_integer() ? step->get<int64_t>() : -1;
}

void cut_after_step(const std::string& path, int64_t last_step) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return;
  int64_t kept_bytes = 0;
  for (std::string line; std::getline(in, line);) {
    if (in.eof()) break;  // no newline: torn
    const int64_t step = step_of_line(line);
    if (step < 0 || step > last_step) break;
    kept_bytes += static_cast<int64_t>(line.size()) + 1;
  }
  in.close();
  std::error_code error;
  std::filesystem::resize_file(path, static_cast<uintmax_t>(kept_bytes), error);
  COHORT_CHECK_INPUT(
      !error, "{}: cannot be cut at step {} to resume ({})", path, last_step, error.message());
}

}  // namespace cohort::core
