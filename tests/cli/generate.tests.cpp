// What `cohort generate` does around the model: prompts from files, text for terminals.
#include "cli/prompts.h"
#include "cli/utf8_pieces.h"
#include "core/base/error.h"
#include "tests/catch.h"
#include "tests/scratch_folder.h"

using namespace cohort;
using Catch::Contains;
using cli::Utf8Pieces;

namespace {

std::string through(const std::string& bytes, size_t piece) {
  Utf8Pieces pieces;
  std::string text;
  for (size_t at = 0; at < bytes.size(); at += piece) text += pieces.push(bytes.substr(at, piece));
  return text + pieces.finish();
}

}  // namespace

TEST_CASE("text comes through in pieces of any size, and only whole characters are shown",
          "[cli-generate]") {
  const std::string text = "a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80z";
  for (size_t piece = 1; piece <= text.size(); ++piece) CHECK(through(text, piece) == text);
  Utf8Pieces pieces;
  CHECK(pieces.push("a\xe2") == "a");
  CHECK(pieces.push("\x82").empty());
  CHECK(pieces.push("\xac") == "\xe2\x82\xac");
  CHECK(pieces.finish().empty());
}

TEST_CASE("bytes that are no text become U+FFFD, and nothing waits for ever", "[cli-generate]") {
  const std::string bad = "\xef\xbf\xbd";
  CHECK(through("a\xff"
                "b",
                1) == "a" + bad + "b");
  CHECK(through("\xe2\x82", 1) == bad);           // cut at the end
  CHECK(through("\xe2z", 1) == bad + "z");        // cut in the middle
  CHECK(through("\xed\xa0\x80", 3).size() == 9);  // a surrogate
  CHECK(through("\x80\x80", 1) == bad + bad);
  CHECK(through("\xc0\xaf", 1) == bad + bad);  // overlong
  Utf8Pieces pieces;
  CHECK(pieces.push("\xf0(") == bad + "(");
}

TEST_CASE("prompts are read with the fields beside them", "[cli-generate]") {
  const tests::ScratchFolder folder;
  const std::string path = folder.write(
      "p.jsonl",
      "{\"id\": 7, \"prompt\": \"a\"}\n\n  \r\n{\"prompt\": \"\\u00e9\\n\", \"x\": [1]}");
  const auto prompts = cli::read_prompts(path);
  REQUIRE(prompts.size() == 2);
  CHECK(prompts[0].text == "a");
  CHECK(prompts[0].fields.dump() == "{\"id\":7,\"prompt\":\"a\"}");
  CHECK(prompts[1].text == "\xc3\xa9\n");
  CHECK(prompts[1].where == path + ":4");
}

TEST_CASE("a broken line is named by file and line", "[cli-generate]") {
  const tests::ScratchFolder folder;
  const std::string good = "{\"prompt\": \"a\"}\n";
  const std::pair<std::string, const char*> cases[] = {
      {"{\"prompt\": ", "is not JSON"},
      {"\"prompt\"", "is no object"},
      {"[1]", "is no object"},
      {"{\"text\": \"a\"}", "has no field \"prompt\""},
      {"{\"prompt\": 5}", "its \"prompt\" is no text"},
      {"{\"prompt\": \"\xff\"}", "is not JSON"},
      {"{\"prompt\": \"a\"} {}", "is not JSON"},
  };
  for (const auto& [line, right] : cases) {
    INFO(line);
    const std::string path = folder.write("p.jsonl", good + line + "\n" + good);
    CHECK_THROWS_WITH(cli::read_prompts(path), Contains(path + ":2: ") && Contains(right));
    CHECK_THROWS_AS(cli::read_prompts(path), InputError);
  }
  CHECK_THROWS_WITH(cli::read_prompts(folder.write("e.jsonl", "\n")), Contains("holds no prompts"));
  CHECK_THROWS_WITH(cli::read_prompts(folder / "none"), Contains("cannot be opened"));
  CHECK_THROWS_WITH(cli::read_prompts(folder.path), Contains("is a folder"));
}
