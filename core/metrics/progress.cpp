#include "core/metrics/progress.h"

#include <spdlog/sinks/base_sink.h>
#include <spdlog/spdlog.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <mutex>
#include <optional>
#include <vector>

namespace cohort::core {
namespace {

constexpr double kTerminalSeconds = 0.1;  // between two paintings of the line
constexpr double kPlainSeconds = 5.0;     // between two lines of a log file

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::optional<double> number(const nlohmann::ordered_json& scalars, const char* key) {
  const auto found = scalars.find(key);
  if (found == scalars.end()) return {};
  if (found->is_null()) return std::nan("");  // a non-finite value that went through JSON
  if (!found->is_number()) return {};
  return found->get<double>();
}

/// Four digits that tell something: 3.412, 0.0421, 10.83, 1.2e+06.
std::string short_number(double value) {
  const double size = std::abs(value);
  if (!std::isfinite(value) || value == 0) return fmt::format("{}", value);
  if (size >= 1e5 || size < 1e-3) return fmt::format("{:.1e}", value);
  return fmt::format("{:.{}f}", value, size >= 1000 ? 0 : size >= 100 ? 1 : size >= 10 ? 2 : 3);
}

struct Field {
  std::string text;
  int importance;  // the least goes first when the line is too long
};

/// What the model learns: in pretraining the losses; in RL rewards, since a policy loss tells
/// nothing.
void add_results(std::vector<Field>& fields, const nlohmann::ordered_json& scalars) {
  const auto reward = number(scalars, "reward_mean");
  if (reward) fields.push_back({"reward " + short_number(*reward), 90});
  if (const auto v = number(scalars, "pass_rate"))
    fields.push_back({fmt::format("pass {:.1f}%", 100 * *v), 80});
  if (const auto v = number(scalars, "eval_pass_at_1"))
    fields.push_back({fmt::format("held-out {:.1f}%", 100 * *v), 95});
  if (const auto v = number(scalars, "loss"); v && !reward)
    fields.push_back({"loss " + short_number(*v), 90});
  if (const auto v = number(scalars, "val_loss")) fields.push_back({"val " + short_number(*v), 85});
  if (const auto v = number(scalars, "val_bits_per_byte"))
    fields.push_back({fmt::format("{:.3f} bits/byte", *v), 80});
}

std::vector<Field> fields_of(int64_t step,
                             int64_t total_steps,
                             const nlohmann::ordered_json& scalars,
                             double eta_seconds) {
  std::vector<Field> fields{{fmt::format("step {}/{}", step, total_steps), 100}};
  add_results(fields, scalars);
  if (const auto v = number(scalars, "completion_tokens_mean"))
    fields.push_back({fmt::format("length {:.0f}", *v), 45});
  if (const auto v = number(scalars, "generate_tokens_per_second"))
    fields.push_back({short_count(*v) + " gen tok/s", 55});
  if (const auto v = number(scalars, "tokens_per_second"))
    fields.push_back({short_count(*v) + " tok/s", 60});
  if (const auto v = number(scalars, "max_vio"))
    fields.push_back({fmt::format("MaxVio {:.2f}", *v), 50});
  if (const auto v = number(scalars, "grad_norm"))
    fields.push_back(
        {std::abs(*v) < 1000 ? fmt::format("grad {:.2f}", *v) : "grad " + short_number(*v), 40});
  if (const auto v = number(scalars, "lr")) fields.push_back({fmt::format("lr {:.1e}", *v), 30});
  if (const auto v = number(scalars, "skipped_steps"); v && *v > 0)
    fields.push_back({fmt::format("skipped {:.0f}", *v), 65});
  if (eta_seconds >= 0) fields.push_back({"ETA " + short_duration(eta_seconds), 70});
  return fields;
}

std::string joined(const std::vector<Field>& fields, const char* between) {
  std::string line;
  for (const Field& field : fields) line += (line.empty() ? "" : between) + field.text;
  return line;
}

/// mpirun hands its ranks a pipe for stderr and copies it to its own: what counts is where that
/// goes.
bool stderr_is_terminal() {
  const char* term = std::getenv("TERM");
  if (term && std::strcmp(term, "dumb") == 0) return false;
  if (::isatty(STDERR_FILENO)) return true;
  if (!std::getenv("OMPI_COMM_WORLD_SIZE")) return false;
  std::error_code error;
  const auto target =
      std::filesystem::read_symlink(fmt::format("/proc/{}/fd/2", ::getppid()), error).string();
  return !error && (target.starts_with("/dev/pts/") || target.starts_with("/dev/tty"));
}

/// One less than the terminal has, so that the cursor never wraps; 79 when it does not say.
int terminal_columns() {
  winsize size{};
  const bool known = ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 20;
  return (known ? size.ws_col : 80) - 1;
}

void write_stderr(const std::string& text) {
  // One write: a terminal never shows half of it, and other ranks' lines do not cut it.
  if (::write(STDERR_FILENO, text.data(), text.size()) < 0) return;  // nobody looks: go on
}

}  // namespace

std::string short_duration(double seconds) {
  if (!(seconds >= 0) || seconds > 1e9) return "?";
  const int64_t s = std::llround(seconds);
  if (s < 60) return fmt::format("{}s", s);
  if (s < 3600) return fmt::format("{}m{:02d}s", s / 60, s % 60);
  if (s < 86400) return fmt::format("{}h{:02d}m", s / 3600, s / 60 % 60);
  return fmt::format("{}d{:02d}h", s / 86400, s / 3600 % 24);
}

std::string short_count(double count) {
  if (!(std::abs(count) >= 1000)) return fmt::format("{:.0f}", count);
  const char* unit = "kMBT";
  double scaled = count / 1000;
  while (std::abs(scaled) >= 999.5 && unit[1]) scaled /= 1000, ++unit;
  const int digits = std::abs(scaled) >= 99.95 ? 0 : std::abs(scaled) >= 9.995 ? 1 : 2;
  return fmt::format("{:.{}f}{}", scaled, digits, *unit);
}

std::string progress_line(int64_t step,
                          int64_t total_steps,
                          const nlohmann::ordered_json& scalars,
                          double eta_seconds,
                          int columns) {
  std::vector<Field> fields = fields_of(step, total_steps, scalars, eta_seconds);
  const auto too_long = [&](const std::string& line) {
    return columns > 0 && line.size() > static_cast<size_t>(columns);
  };
  std::string line = joined(fields, "  ");
  if (too_long(line)) line = joined(fields, " ");
  while (too_long(line) && fields.size() > 1) {
    fields.erase(std::min_element(fields.begin(), fields.end(), [](const Field& a, const Field& b) {
      return a.importance < b.importance;
    }));
    line = joined(fields, " ");
  }
  if (too_long(line)) line.resize(static_cast<size_t>(columns));
  return line;
}

void StepRate::observe(int64_t step, double now_seconds) {
  if (last_step_ >= 0 && step > last_step_) {
    const double elapsed = std::max(0.0, now_seconds - last_seconds_);
    const double kept = std::exp(-elapsed / memory_seconds_);
    steps_ = steps_ * kept + static_cast<double>(step - last_step_);
    seconds_ = seconds_ * kept + elapsed;
  }
  last_step_ = step;
  last_seconds_ = now_seconds;
}

double StepRate::seconds_per_step() const { return steps_ > 0 ? seconds_ / steps_ : -1.0; }

struct ProgressLine::State {
  explicit State(int64_t total) : total_steps(total), terminal(stderr_is_terminal()) {}

  void show(int64_t step, const nlohmann::ordered_json& scalars) {
    const std::lock_guard lock(mutex);
    const double now = now_seconds();
    rate.observe(step, now);
    const double each = rate.seconds_per_step();
    const double eta =
        each < 0 ? -1.0 : each * static_cast<double>(std::max<int64_t>(0, total_steps - step));
    latest = progress_line(step, total_steps, scalars, eta, terminal ? terminal_columns() : 0);
    printed = false;
    const bool lasting = scalars.contains("val_loss") || scalars.contains("eval_pass_at_1");
    const double pause = terminal ? kTerminalSeconds : kPlainSeconds;
    if (lasting || step == total_steps || now - last_print >= pause) print(now, lasting);
  }

  void print(double now, bool lasting) {
    write_stderr(terminal ? "\r" + latest + "\x1b[K" + (lasting ? "\n" : "") : latest + "\n");
    live = terminal && !lasting;
    printed = true;
    last_print = now;
  }

  /// Makes room for a line of the log; the next show() paints again.
  void clear() {
    const std::lock_guard lock(mutex);
    if (live) write_stderr("\r\x1b[K");
    live = false;
    last_print = -1e9;
  }

  void finish() {
    const std::lock_guard lock(mutex);
    if (!printed && !latest.empty()) print(now_seconds(), false);
    if (live) write_stderr("\n");
    live = false;
  }

  std::mutex mutex;
  const int64_t total_steps;
  const bool terminal;
  StepRate rate;
  std::string latest;    // the line of the last step, printed or not
  bool printed = false;  // whether `latest` is out
  bool live = false;     // whether the cursor stands in a line without newline
  double last_print = -1e9;
};

namespace {

/// Stands before the log's own sink, so that a message never lands behind the live line. It stays
/// when the run ends (other threads may be logging), and then does nothing.
template <class Line>
class ClearLineFirst : public spdlog::sinks::base_sink<std::mutex> {
 public:
  explicit ClearLineFirst(std::weak_ptr<Line> line) : line_(std::move(line)) {}

 protected:
  void sink_it_(const spdlog::details::log_msg&) override {
    if (const auto line = line_.lock()) line->clear();
  }
  void flush_() override {}

 private:
  std::weak_ptr<Line> line_;
};

}  // namespace

ProgressLine::ProgressLine(int64_t total_steps) : state_(std::make_shared<State>(total_steps)) {
  if (!state_->terminal) return;
  auto& sinks = spdlog::default_logger()->sinks();
  sinks.insert(sinks.begin(), std::make_shared<ClearLineFirst<State>>(state_));
}

ProgressLine::~ProgressLine() { state_->finish(); }

void ProgressLine::show(int64_t step, const nlohmann::ordered_json& scalars) {
  state_->show(step, scalars);
}

}  // namespace cohort::core
