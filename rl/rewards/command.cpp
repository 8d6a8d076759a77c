#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <deque>
#include <optional>

#include "rl/rewards/builtin.h"
#include "rl/rewards/options.h"
#include "rl/rewards/process.h"

namespace cohort::rl {
namespace {

using Clock = std::chrono::steady_clock;
constexpr size_t kMaxLine = size_t{1} << 20;  // of an answer

/// Writing to a program that has gone must be an error and not a signal, whatever the process at
/// large does with SIGPIPE.
class PipeSignalHeld {
 public:
  PipeSignalHeld() {
    ::sigemptyset(&pipe_);
    ::sigaddset(&pipe_, SIGPIPE);
    ::pthread_sigmask(SIG_BLOCK, &pipe_, &before_);
  }
  ~PipeSignalHeld() {
    const timespec now = {};
    if (!::sigismember(&before_, SIGPIPE))
      while (::sigtimedwait(&pipe_, nullptr, &now) > 0) {
      }
    ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }

 private:
  sigset_t pipe_, before_;
};

/// Sends lines and collects lines at the same time, so that neither side can wait for the other.
class Conversation {
 public:
  Conversation(Process& process, std::string text, double seconds)
      : process_(process),
        text_(std::move(text)),
        deadline_(Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                     std::chrono::duration<double>(seconds))) {}

  /// Until `count` lines are there (all lines, when to_the_end), or something stops it: then
  /// `problem` says what.
  void hold(size_t count, bool to_the_end) {
    const PipeSignalHeld held;
    to_the_end_ = to_the_end;
    while (problem.empty() && !ended_ && (to_the_end || lines.size() < count)) {
      if (Clock::now() >= deadline_) {
        problem = "gave no answer in time";
        return;
      }
      wait();
      send();
      receive();
    }
    // An answer too many is often there already.
    if (problem.empty() && !ended_) receive();
  }

  /// Until the program itself has ended. False when it does not in time.
  bool wait_for_end() {
    while (!process_.ended()) {
      if (Clock::now() >= deadline_) return false;
      ::usleep(500);
    }
    return true;
  }

  std::deque<std::string> lines;
  std::string problem;
  bool ended() const { return ended_; }

 private:
  void wait() {
    pollfd waiting[2] = {{process_.output(), POLLIN, 0}, {process_.input(), POLLOUT, 0}};
    ::poll(waiting, process_.input() >= 0 && sent_ < text_.size() ? 2 : 1, 20);
  }

  void send() {
    while (process_.input() >= 0 && sent_ < text_.size()) {
      const ssize_t written = ::write(process_.input(), text_.data() + sent_, text_.size() - sent_);
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) {
        if (errno != EAGAIN)
          process_.close_input();  // it stopped reading; its output says the rest
        return;
      }
      sent_ += static_cast<size_t>(written);
    }
    if (to_the_end_) process_.close_input();
  }

  void receive() {
    char bytes[65536];
    // A bounded number of reads a turn: a program that floods us must not outlast the deadline.
    for (int turn = 0; turn < 16; ++turn) {
      const ssize_t got = ::read(process_.output(), bytes, sizeof bytes);
      if (got == 0) {
        ended_ = true;
        if (!partial_.empty()) take("\n");  // its last line had no end
      }
      if (got <= 0) break;
      take({bytes, static_cast<size_t>(got)});
    }
  }

  void take(std::string_view bytes) {
    for (char c : bytes) {
      if (c == '\n') {
        if (partial_.find_first_not_of(" \t\r") != std::string::npos) lines.push_back(partial_);
        partial_.clear();
      } else {
        partial_ += c;
      }
    }
    if (partial_.size() > kMaxLine) problem = "printed a line of more than a megabyte";
    if (lines.size() > 1'000'000) problem = "printed a million lines";
  }

  Process& process_;
  std::string text_, partial_;
  size_t sent_ = 0;
  bool ended_ = false, to_the_end_ = false;
  Clock::time_point deadline_;
};

/// The number of an answer line, where it holds one.
std::optional<double> value_in(const std::string& line) {
  const nlohmann::json answer = nlohmann::json::parse(line, nullptr, false);
  const nlohmann::json* value = &answer;
  if (answer.is_object() && answer.contains("reward")) value = &answer["reward"];
  if (!value->is_number()) return std::nullopt;
  const double number = value->get<double>();
  return std::isfinite(number) ? std::optional(number) : std::nullopt;
}

class CommandReward final : public Reward {
 public:
  explicit CommandReward(const nlohmann::json& json) {
    Options options("reward command", json);
    if (json.is_object() && json.contains("command") && json["command"].is_string())
      command_ = {"/bin/sh", "-c", options.require<std::string>("command")};
    else
      command_ = options.require<std::vector<std::string>>("command");
    keep_ = options.get("keep", true);
    seconds_ = options.within("seconds", options.get("seconds", 60.0), 0.01, 86400.0);
    options.finish();
    const char* path = std::getenv("PATH");
    COHORT_CHECK_INPUT(
        !command_.empty() && !find_program(command_[0], path ? path : kSafePath).empty(),
        "reward command: there is no program \"{}\"; give a path, or a name that is on PATH",
        command_.empty() ? "" : command_[0]);
  }

  std::string name() const override { return "command"; }
  int64_t failures() const override { return failures_; }
  std::string first_failure() const override { return first_failure_; }

  std::vector<double> score(std::span<const Completion> batch) override {
    std::vector<double> values(batch.size(), 0.0);
    if (batch.empty()) return values;
    const int64_t before = failures_;
    std::string reason;
    try {
      reason = ask(batch, values);
    } catch (const Error& error) {
      reason = error.what();
      failures_ += static_cast<int64_t>(batch.size());
      process_.reset();
    }
    if (failures_ > before && first_failure_.empty())
      first_failure_ = fmt::format("reward command {} {}", command_.back(), reason);
    return values;
  }

 private:
  static std::string question(std::span<const Completion> batch) {
    std::string text;
    for (size_t i = 0; i < batch.size(); ++i) {
      const Completion& completion = batch[i];
      const nlohmann::json line = {{"index", i},
                                   {"count", batch.size()},
                                   {"prompt", completion.prompt},
                                   {"completion", completion.text},
                                   {"tokens", completion.tokens},
                                   {"truncated", completion.truncated},
                                   {"problem", completion.problem}};
      // A model may stop inside a UTF-8 character.
      text += line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
    }
    return text;
  }

  /// Fills in the values; returns why some are missing, having counted them.
  std::string ask(std::span<const Completion> batch, std::vector<double>& values) {
    // One that has gone, or said more than it was asked: what it says next could belong to any
    // sample.
    if (process_ && (process_->ended() || has_output(*process_))) process_.reset();
    if (!process_) process_ = std::make_unique<Process>(Launch{command_, "", "", std::nullopt});
    Conversation conversation(*process_, question(batch), seconds_);
    conversation.hold(batch.size(), !keep_);
    std::deque<std::string>& lines = conversation.lines;
    std::string reason = conversation.problem;
    bool condemned = !keep_ && !reason.empty();
    if (reason.empty() && conversation.ended()) {
      reason = how_it_ended(conversation, batch.size());
      condemned = !keep_ && !reason.empty();
    }
    const std::string misfit = unfit(lines, batch.size());
    if (!misfit.empty()) {
      reason = misfit;
      condemned = true;
    }
    if (condemned) lines.clear();
    if (!keep_ || !reason.empty() || conversation.ended()) process_.reset();
    take(lines, values);
    return reason;
  }

  static bool has_output(const Process& process) {
    pollfd waiting{process.output(), POLLIN, 0};
    return ::poll(&waiting, 1, 0) > 0;
  }

  /// Empty when the program ended well and with enough answers.
  std::string how_it_ended(Conversation& conversation, size_t count) {
    if (!conversation.wait_for_end()) return "closed its output and does not end";
    const int status = process_->finish();
    if (status != 0) return fmt::format("ended with status {}", status);
    if (conversation.lines.size() < count)
      return fmt::format("gave {} answers for {} samples", conversation.lines.size(), count);
    return "";
  }

  /// Why the lines cannot be the answers in order: a stray line may have shifted all of them.
  static std::string unfit(const std::deque<std::string>& lines, size_t count) {
    if (lines.size() > count)
      return fmt::format("gave more than {} answers for {} samples", count, count);
    for (const std::string& line : lines)
      if (!value_in(line))
        return fmt::format("answered \"{}\" where a number or {{\"reward\": number}} was due",
                           line.substr(0, 60));
    return "";
  }

  /// The values of the lines, one a sample in order; the samples behind the last line have failed.
  void take(const std::deque<std::string>& lines, std::vector<double>& values) {
    for (size_t i = 0; i < lines.size(); ++i) values[i] = *value_in(lines[i]);
    failures_ += static_cast<int64_t>(values.size() - lines.size());
  }

  std::vector<std::string> command_;
  bool keep_;
  double seconds_;
  int64_t failures_ = 0;
  std::string first_failure_;
  std::unique_ptr<Process> process_;
};

}  // namespace

std::unique_ptr<Reward> make_command_reward(const nlohmann::json& options) {
  return std::make_unique<CommandReward>(options);
}

}  // namespace cohort::rl
