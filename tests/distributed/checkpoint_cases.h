// What the checkpoint tests share: a world of one rank, a folder that goes away, small contents.
#pragma once
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>
#include "tests/scratch_folder.h"

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "distributed/checkpoint.h"

namespace cohort::tests {

namespace fs = std::filesystem;

inline distributed::CheckpointSlice whole(const std::string& name, const at::Tensor& value) {
  return {name, value.sizes().vec(), 0, value.numel(), value};
}

/// A few tensors whose values tell the step.
inline distributed::CheckpointContent small_content(int64_t step) {
  distributed::CheckpointContent content;
  const auto value = at::arange(12, at::kFloat) + static_cast<double>(step);
  content.model = {whole("layer.weight", value.view({3, 4})),
                   whole("layer.bias", value.slice(0, 0, 3).to(at::kBFloat16))};
  content.optimizer = {{"layer.weight#exp_avg", {3, 4}, 0, 5, value.slice(0, 0, 5)},
                       {"layer.weight#exp_avg", {3, 4}, 5, 12, value.slice(0, 5, 12)}};
  content.state = {{"step", step}, {"seed", 18446744073709551615ull}, {"lr", 0.1}};
  content.files = {{"config.json", "{\"hidden_size\": 4}\n"}};
  return content;
}

inline bool same_bytes(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == b.scalar_type() && a.sizes() == b.sizes() &&
         (a.nbytes() == 0 || std::memcmp(a.data_ptr(), b.data_ptr(), a.nbytes()) == 0);
}

inline std::vector<int64_t> steps_in(const std::string& folder) {
  std::vector<int64_t> steps;
  for (const auto& checkpoint : distributed::checkpoints_in(folder))
    steps.push_back(checkpoint.step);
  return steps;
}

/// Names in a folder, sorted.
inline std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

/// No file of this process can grow past `bytes` while this lives: a disk that is full.
class SmallDisk {
 public:
  explicit SmallDisk(rlim_t bytes) {
    getrlimit(RLIMIT_FSIZE, &before_);
    handler_ = std::signal(SIGXFSZ, SIG_IGN);
    struct rlimit low = before_;
    low.rlim_cur = bytes;
    setrlimit(RLIMIT_FSIZE, &low);
  }
  ~SmallDisk() {
    setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  struct rlimit before_ {};
  void (*handler_)(int);
};

/// Collects what is logged while this lives.
class CapturedLog {
 public:
  CapturedLog() : before_(spdlog::default_logger()) {
    auto logger = std::make_shared<spdlog::logger>(
        "captured", std::make_shared<spdlog::sinks::ostream_sink_mt>(out_));
    logger->set_pattern("%l: %v");
    spdlog::set_default_logger(logger);
  }
  ~CapturedLog() { spdlog::set_default_logger(before_); }
  std::string text() const { return out_.str(); }
  int64_t lines() const {
    const std::string all = text();
    return std::count(all.begin(), all.end(), '\n');
  }

 private:
  std::shared_ptr<spdlog::logger> before_;
  std::ostringstream out_;
};

}  // namespace cohort::tests
