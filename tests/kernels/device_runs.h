// Running device kernels on the host in tests: every order, and faults planted in every place that
// synchronises.
#pragma once
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "kernels/cpu/simd.h"
#include "kernels/cuda/host/execution.h"
#include "tests/catch.h"

namespace cohort::tests {

using Bytes = std::vector<char>;
namespace host = kernels::host;

/// Sizes and types that kernels were run at and compared: main tells how many.
inline int64_t combinations = 0;

inline const std::vector<host::Schedule>& schedules() {
  static const std::vector<host::Schedule> all = {{host::Order::kInOrder},
                                                  {host::Order::kReversed},
                                                  {host::Order::kRandom, 1},
                                                  {host::Order::kRandom, 12}};
  return all;
}

/// What the vectors hold, for comparison bit by bit.
template <class... Vectors>
Bytes bytes_of(const Vectors&... vectors) {
  Bytes bytes;
  const auto add = [&](const auto& v) {
    const auto* p = reinterpret_cast<const char*>(v.data());
    bytes.insert(bytes.end(), p, p + v.size() * sizeof(v[0]));
  };
  (add(vectors), ...);
  return bytes;
}

/// run() in every order must leave the same bytes.
template <class Run>
void check_every_order(const Run& run) {
  ++combinations;
  const Bytes first = run();
  for (size_t i = 1; i < schedules().size(); ++i) {
    const host::UseSchedule use(schedules()[i]);
    CHECK(run() == first);
  }
}

/// True if run() leaves other bytes than `right`, throws or crashes; in a process of its own, since
/// a faulty kernel may write anywhere.
template <class Run>
bool goes_wrong(const Run& run, const Bytes& right) {
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    for (const int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL})
      std::signal(signal, SIG_DFL);
    // Of processor time: on a busy machine the clock says nothing.
    const rlimit limit{60, 60};
    setrlimit(RLIMIT_CPU, &limit);
    if (!std::freopen("/dev/null", "w", stderr)) _exit(1);
    bool same = false;
    try {
      same = run() == right;
    } catch (const host::LaunchError&) {
    }
    _exit(same ? 0 : 1);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  return !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/// The sites where a planted fault changes nothing in any order, `more` random ones among them:
/// there should be none.
template <class Run>
std::vector<std::string> faults_not_caught(const Run& run, uint64_t more = 0) {
  const Bytes right = run();
  CHECK_FALSE(goes_wrong(run, right));
  std::vector<std::string> missed;
  const auto sites = host::sync_sites([&] { run(); });
  CHECK_FALSE(sites.empty());
  for (const auto& site : sites) {
    const host::PlantFault fault(site);
    bool caught = false;
    for (size_t i = 0; i < schedules().size() && !caught; ++i) {
      const host::UseSchedule use(schedules()[i]);
      caught = goes_wrong(run, right);
    }
    for (uint64_t seed = 0; seed < more && !caught; ++seed) {
      const host::UseSchedule use({host::Order::kRandom, 100 + seed});
      caught = goes_wrong(run, right);
    }
    if (!caught) missed.push_back(site.file + ":" + std::to_string(site.line));
  }
  return missed;
}

/// The device's name for a CPU type of the same layout.
template <class T>
using DeviceType = std::conditional_t<std::is_same_v<T, kernels::bf16>, __nv_bfloat16, T>;
template <class T>
DeviceType<T>* on_device(T* p) {
  return reinterpret_cast<DeviceType<T>*>(p);
}
template <class T>
const DeviceType<T>* on_device(const T* p) {
  return reinterpret_cast<const DeviceType<T>*>(p);
}

/// Normal values; `offset` elements are kept free in front, so that rows can start out of
/// alignment.
template <class T>
std::vector<T> normal_values(int64_t count, unsigned seed, double deviation = 1) {
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal(0, deviation);
  std::vector<T> x(count);
  for (auto& v : x) kernels::from_sum(static_cast<kernels::Sum<T>>(normal(generator)), v);
  return x;
}

/// Largest |a - b| over 1 + |b|.
template <class A, class B>
double worst_error(const std::vector<A>& a, const std::vector<B>& b) {
  double worst = a.size() == b.size() ? 0 : INFINITY;
  for (size_t i = 0; i < a.size() && i < b.size(); ++i) {
    const double x = kernels::to_sum(a[i]), y = kernels::to_sum(b[i]);
    const double error = std::abs(x - y) / (1 + std::abs(y));
    worst = error <= worst ? worst : error;  // a NaN wins
    if (error != error) return INFINITY;
  }
  return worst;
}

}  // namespace cohort::tests
