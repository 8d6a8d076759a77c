// The files of a run that may be killed at any moment.
#include "rl/sample_parts.h"

#include <filesystem>

#include "core/base/error.h"
#include "tests/catch.h"
#include "tests/scratch_folder.h"

using namespace cohort;
using Catch::Matchers::Contains;
using nlohmann::ordered_json;
namespace fs = std::filesystem;

namespace {

ordered_json plan(const std::string& weights = "w1", int64_t size = 2) {
  return {{"weights", weights}, {"sample.prompts_per_part", size}, {"result", "of " + weights}};
}

struct Fixture {
  tests::ScratchFolder folder;
  std::string out = folder / "deep/samples.jsonl";

  rl::SampleParts parts(const ordered_json& of = plan()) const { return {out, of}; }
  std::string slip(const ordered_json& of) const {
    try {
      parts(of).open(false);
    } catch (const InputError& error) {
      return error.what();
    }
    return "";
  }
};

const ordered_json kSummary{{"result", "of w1"}, {"kept", 3}};

}  // namespace

TEST_CASE("parts written in any order join in theirs", "[rl-sample_parts]") {
  const Fixture f;
  auto parts = f.parts();
  parts.open(false);
  CHECK_FALSE(parts.has(0));
  parts.write(1, {{"n", 1}}, "c\n");
  parts.write(0, {{"n", 2}}, "a\nb\n");
  parts.write(2, {{"n", 0}}, "");
  CHECK(parts.counts(0) == ordered_json{{"n", 2}});
  CHECK_FALSE(parts.finished());
  parts.finish(3, kSummary);
  CHECK(tests::read_bytes(f.out) == "a\nb\nc\n");
  CHECK(parts.finished() == kSummary);
  CHECK_FALSE(fs::exists(f.out + ".parts"));
  CHECK(f.folder.list("deep") == std::vector<std::string>{"samples.jsonl", "samples.summary.json"});
}

TEST_CASE("a part that is cut or changed is drawn again", "[rl-sample_parts]") {
  const Fixture f;
  auto parts = f.parts();
  parts.open(false);
  parts.write(0, {{"n", 1}}, "abc\n");
  const std::string path = f.out + ".parts/part-00000000";
  const std::string whole = tests::read_bytes(path);
  for (size_t size = 0; size < whole.size(); ++size) {
    tests::write_bytes(path, whole.substr(0, size));
    CHECK_FALSE(parts.has(0));
  }
  tests::write_bytes(path, whole.substr(0, whole.size() - 2) + "x\n");
  CHECK_FALSE(parts.has(0));
  CHECK_THROWS_WITH(parts.finish(1, kSummary), Contains("part-00000000"));
  tests::write_bytes(path, whole);
  CHECK(parts.has(0));
}

TEST_CASE("another command goes on only with the same plan", "[rl-sample_parts]") {
  const Fixture f;
  f.parts().open(false);
  CHECK(f.slip(plan()) == "");
  CHECK_THAT(f.slip(plan("w2")), Contains("another weights (\"w1\" then, \"w2\" now)"));
  CHECK_THAT(f.slip(plan("w1", 3)), Contains("sample.prompts_per_part"));
  auto other = f.parts(plan("w2"));
  other.open(true);
  CHECK_THAT(f.slip(plan()), Contains("(\"w2\" then, \"w1\" now)"));
}

TEST_CASE("a file that is there already is kept", "[rl-sample_parts]") {
  const Fixture f;
  auto parts = f.parts();
  parts.open(false);
  parts.write(0, {{"n", 1}}, "a\n");
  parts.finish(1, kSummary);
  f.parts().open(false);
  f.parts(plan("w1", 7)).open(false);  // the parts do not matter any more
  CHECK(tests::read_bytes(f.out) == "a\n");
  CHECK_THAT(f.slip(plan("w2")), Contains("is there already"));
  CHECK_FALSE(fs::exists(f.out + ".parts"));
  auto anew = f.parts(plan("w2"));
  anew.open(true);
  CHECK_FALSE(fs::exists(f.out));
}

TEST_CASE("a command killed between the result's place and its parts' end is finished",
          "[rl-sample_parts]") {
  const Fixture f;
  auto parts = f.parts();
  parts.open(false);
  parts.write(0, {{"n", 1}}, "a\n");
  parts.finish(1, kSummary);
  fs::create_directories(f.out + ".parts");
  tests::write_bytes(f.out + ".parts/part-00000000", "left over");
  f.parts().open(false);
  CHECK(f.parts().finished() == kSummary);
  CHECK_FALSE(fs::exists(f.out + ".parts"));
}
