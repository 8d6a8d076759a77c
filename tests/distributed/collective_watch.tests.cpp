#include "distributed/collective_watch.h"

#include "core/base/error.h"
#include "tests/catch.h"

using namespace cohort::distributed;

namespace {

/// An operation whose progress the test sets.
struct Scripted {
  Progress progress = Progress::kQueued;
  std::string broken;
  CollectiveWatch::Probe probe() {
    return [this] {
      if (!broken.empty()) throw cohort::Error(broken);
      return progress;
    };
  }
};

constexpr const char* kTag = "[distributed][watch]";
const int ep = 0, dp = 0;  // Their addresses tell communicators apart.

}  // namespace

TEST_CASE("A collective that runs past its limit is named", kTag) {
  CollectiveWatch watch;
  Scripted stuck{Progress::kRunning, ""};
  watch.add(&ep, {"all_to_all_v", "ep", 3, 41}, stuck.probe());
  CHECK_FALSE(watch.poll(100, 10));
  CHECK_FALSE(watch.poll(110, 10));
  const auto message = watch.poll(110.1, 10);
  REQUIRE(message);
  CHECK(*message ==
        "all_to_all_v number 41 on axis ep has taken its rank 3 more than 10 s (run.timeout_s)");
}

TEST_CASE("Time counts from where a collective begins, not from where it was queued", kTag) {
  CollectiveWatch watch;
  Scripted waiting;
  watch.add(&ep, {"all_reduce", "ep", 0, 0}, waiting.probe());
  CHECK_FALSE(watch.poll(0, 10));
  CHECK_FALSE(watch.poll(1000, 10));
  waiting.progress = Progress::kRunning;
  CHECK_FALSE(watch.poll(1001, 10));
  CHECK_FALSE(watch.poll(1011, 10));
  CHECK(watch.poll(1012, 10));
}

TEST_CASE("What is done is forgotten, however long it took between two looks", kTag) {
  CollectiveWatch watch;
  Scripted slow{Progress::kRunning, ""};
  watch.add(&ep, {"all_reduce", "ep", 0, 0}, slow.probe());
  CHECK_FALSE(watch.poll(0, 10));
  CHECK(watch.under_way(&ep) == 1);
  slow.progress = Progress::kDone;
  CHECK_FALSE(watch.poll(1000, 10));
  CHECK(watch.under_way(&ep) == 0);
}

TEST_CASE("Of several late collectives the one that began first is named", kTag) {
  CollectiveWatch watch;
  Scripted late{Progress::kQueued, ""}, first{Progress::kRunning, ""};
  watch.add(&dp, {"all_gather", "dp", 1, 5}, late.probe());
  watch.add(&ep, {"all_to_all_v", "ep", 0, 6}, first.probe());
  CHECK_FALSE(watch.poll(0, 10));
  late.progress = Progress::kRunning;
  CHECK_FALSE(watch.poll(5, 10));
  const auto message = watch.poll(20, 10);
  REQUIRE(message);
  CHECK(message->find("all_to_all_v number 6 on axis ep") == 0);
}

TEST_CASE("A limit of 0 waits for ever", kTag) {
  CollectiveWatch watch;
  Scripted stuck{Progress::kRunning, ""};
  watch.add(&ep, {"broadcast", "ep", 0, 0}, stuck.probe());
  CHECK_FALSE(watch.poll(0, 0));
  CHECK_FALSE(watch.poll(1e9, 0));
}

TEST_CASE("An operation that cannot be asked after is named with the library's words", kTag) {
  CollectiveWatch watch;
  Scripted fine{Progress::kRunning, ""}, broken{Progress::kRunning, "an illegal memory access"};
  watch.add(&dp, {"all_reduce", "dp", 2, 8}, fine.probe());
  watch.add(&ep, {"all_gather", "ep", 1, 9}, broken.probe());
  const auto message = watch.poll(0, 10);
  REQUIRE(message);
  CHECK(*message ==
        "all_gather number 9 on axis ep failed on its rank 1: an illegal memory access");
}

TEST_CASE("An error of a communicator is laid to its operation under way, or to the next", kTag) {
  CollectiveWatch watch;
  Scripted a{Progress::kRunning, ""}, b{Progress::kRunning, ""};
  watch.add(&dp, {"all_reduce", "dp", 0, 1}, a.probe());
  watch.add(&ep, {"all_gather", "ep", 1, 2}, b.probe());
  const Operation next{"collective", "ep", 1, 3};
  CHECK(watch.fault(&ep, next, "remote error") ==
        "all_gather number 2 on axis ep failed on its rank 1: remote error");
  watch.forget(&ep);
  CHECK(watch.under_way(&dp) == 1);
  CHECK(watch.fault(&ep, next, "remote error") ==
        "collective number 3 on axis ep failed on its rank 1: remote error");
}
