// Mutated files of models, read as the product reads them.
//
//   fuzz_tests ITERATIONS [KIND] [SEED] [FIRST]
//
// Each mutation is read or refused with a one-line InputError. Anything else is a failure: another
// exception, a crash, an allocation out of proportion, more than a second of the processor's time.
#include <sys/resource.h>
#include <sys/time.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstring>
#include <ctime>

#include "core/base/error.h"
#include "tests/fuzz/targets.h"

// The sanitizer's own limit on one allocation; without it RLIMIT_AS below has that part.
extern "C" const char* __asan_default_options() {
  return "detect_leaks=0:protect_shadow_gap=0:max_allocation_size_mb=256:allocator_may_return_null="
         "0";
}

namespace {

using namespace cohort;
char current[200];  ///< What to repeat, for the signal handlers.

void on_signal(int number) {
  const char* what = number == SIGPROF ? "hangs: " : "crashes: ";
  [[maybe_unused]] auto ignored = ::write(2, what, std::strlen(what));
  ignored = ::write(2, current, std::strlen(current));
  ::_exit(1);
}

double processor_seconds() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

/// Of processor time, so that a busy machine makes no difference.
void set_alarm(int seconds) {
  itimerval timer{};
  timer.it_value.tv_sec = seconds;
  setitimer(ITIMER_PROF, &timer, nullptr);
}

/// Empty when the file was read or refused as it should be.
std::string fault(const tests::FuzzTarget& target, bool* refused) {
  try {
    target.read();
  } catch (const InputError& error) {
    *refused = true;
    const std::string said = error.what();
    if (said.empty()) return "is refused without a word";
    // Several faults are several lines; none is a flood.
    if (said.size() > 20000) return "is refused with " + std::to_string(said.size()) + " bytes";
    for (const unsigned char c : said)
      if ((c < ' ' && c != '\n') || c == 0x7f) return "is refused with control characters: " + said;
  } catch (const std::bad_alloc&) {
    return "asks for too much memory";
  } catch (const std::exception& error) {
    return std::string("throws something else: ") + error.what();
  }
  return "";
}

int run(const tests::FuzzTarget& target, uint64_t seed, uint64_t first, uint64_t iterations) {
  uint64_t refused_count = 0, failures = 0;
  double slowest = 0;
  for (uint64_t i = first; i < first + iterations; ++i) {
    std::snprintf(current,
                  sizeof current,
                  "fuzz_tests 1 %s %llu %llu\n",
                  target.kind.c_str(),
                  static_cast<unsigned long long>(seed),
                  static_cast<unsigned long long>(i));
    tests::Mutation mutation(seed, i);
    target.write(mutation);
    bool refused = false;
    set_alarm(20);
    const double start = processor_seconds();
    std::string said = fault(target, &refused);
    const double took = processor_seconds() - start;
    set_alarm(0);
    slowest = std::max(slowest, took);
    if (said.empty() && took > 1) said = fmt::format("takes {:.2f} s", took);
    refused_count += refused;
    if (said.empty()) continue;
    std::printf("FAILED: %s; repeat with: %s", said.c_str(), current);
    if (++failures >= 20) break;
  }
  std::printf("%s: %llu mutations, %llu refused, %llu failures; slowest %.3f s\n",
              target.kind.c_str(),
              static_cast<unsigned long long>(iterations),
              static_cast<unsigned long long>(refused_count),
              static_cast<unsigned long long>(failures),
              slowest);
  std::fflush(stdout);
  // A test that refuses all or nothing proves nothing.
  const bool meaningful = iterations < 100 || (refused_count > 0 && refused_count < iterations);
  if (!meaningful) std::printf("FAILED: %s: all mutations end alike\n", target.kind.c_str());
  return failures > 0 || !meaningful;
}

}  // namespace

int main(int argc, char** argv) {
  const uint64_t iterations = argc > 1 ? std::stoull(argv[1]) : 400;
  const std::string kind = argc > 2 ? argv[2] : "all";
  const uint64_t seed = argc > 3 ? std::stoull(argv[3]) : 1;
  const uint64_t first = argc > 4 ? std::stoull(argv[4]) : 0;
  std::signal(SIGPROF, on_signal);
#ifndef __SANITIZE_ADDRESS__  // which has more to say on a crash than its number
  for (const int number : {SIGSEGV, SIGBUS, SIGFPE, SIGILL}) std::signal(number, on_signal);
#endif
  const tests::ScratchFolder folder;
  const auto targets = tests::fuzz_targets(folder);
#ifndef __SANITIZE_ADDRESS__
  const rlimit limit{rlim_t{4} << 30, rlim_t{4} << 30};  // LibTorch alone maps more than one GiB
  setrlimit(RLIMIT_AS, &limit);
#endif
  int failed = 0, runs = 0;
  for (const auto& target : targets)
    if (kind == "all" || kind == target.kind)
      ++runs, failed |= run(target, seed, first, iterations);
  if (runs == 0) std::printf("there is no kind '%s'\n", kind.c_str());
  return failed || runs == 0;
}
