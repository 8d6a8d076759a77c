// Which completions are kept.
#include "rl/sample_choice.h"

#include <limits>
#include <set>

#include "tests/catch.h"

using namespace cohort;
using Places = std::vector<int64_t>;

namespace {

core::SampleConfig config(double keep_at_least, int64_t keep_per_prompt = 0) {
  core::SampleConfig config;
  config.keep_at_least = keep_at_least;
  config.keep_per_prompt = keep_per_prompt;
  return config;
}

const std::vector<rl::SampledCompletion> kSome{{"a b", 3, false, 1.0},
                                               {"wrong", 2, false, 0.0},
                                               {" a\t\n b ", 5, false, 1.5},
                                               {"cut", 9, true, 1.0},
                                               {"", 1, false, 1.0},
                                               {"c", 1, false, 1.2},
                                               {"d", 1, false, 1.2},
                                               {"ab", 1, false, 1.0}};

}  // namespace

TEST_CASE("what is good, whole and new is kept, and the rest counted", "[rl-sample_choice]") {
  const auto choice = rl::choose(kSome, config(1.0), 1);
  CHECK(choice.kept == Places{0, 5, 6, 7});
  CHECK(choice.below == 1);
  CHECK(choice.truncated == 1);
  CHECK(choice.empty == 1);
  CHECK(choice.duplicates == 1);
  CHECK(choice.surplus == 0);
}

TEST_CASE("the best of a problem are kept, of equal ones the first", "[rl-sample_choice]") {
  CHECK(rl::choose(kSome, config(1.0, 1), 1).kept == Places{2});
  CHECK(rl::choose(kSome, config(1.0, 2), 1).kept == Places{2, 5});
  const auto three = rl::choose(kSome, config(1.0, 3), 1);
  CHECK(three.kept == Places{2, 5, 6});
  CHECK(three.duplicates == 1);
  CHECK(three.surplus == 1);
}

TEST_CASE("a random choice is one of the seed", "[rl-sample_choice]") {
  auto random = config(1.0, 1);
  random.choose = "random";
  std::set<Places> seen;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    const auto kept = rl::choose(kSome, random, seed).kept;
    CHECK(kept.size() == 1);
    CHECK(kept == rl::choose(kSome, random, seed).kept);
    seen.insert(kept);
  }
  CHECK(seen == std::set<Places>{{0}, {2}, {5}, {6}, {7}});
}

TEST_CASE("threshold, duplicates and cut ones are the user's choice", "[rl-sample_choice]") {
  auto all = config(-std::numeric_limits<double>::infinity());
  all.deduplicate = false;
  all.keep_truncated = true;
  CHECK(rl::choose(kSome, all, 1).kept == Places{0, 1, 2, 3, 5, 6, 7});
  CHECK(rl::choose(kSome, config(1.5), 1).kept == Places{2});
  CHECK(rl::choose(kSome, config(1.6), 1).kept.empty());
  // A reward that is no number reaches no threshold.
  CHECK(rl::choose(std::vector<rl::SampledCompletion>{{"x", 1, false, std::nan("")}}, config(0), 1)
            .below == 1);
}

TEST_CASE("white space is one space between words and none around them", "[rl-sample_choice]") {
  CHECK(rl::normalised_space(" a \n\t b\xc2\xa0\xe2\x80\x83 c\n") == "a b c");
  CHECK(rl::normalised_space(" \n") == "");
  CHECK(rl::normalised_space("\xc3\xa9 \xe4\xb8\xad") == "\xc3\xa9 \xe4\xb8\xad");
}
