// tokenizer.json files that are wrong, and the one line that each of them gets.
#include <nlohmann/json.hpp>
#include <random>

#include "core/base/error.h"
#include "core/tokenizer/pattern.h"
#include "core/tokenizer/tokenizer.h"
#include "tests/catch.h"
#include "tests/core/tokenizer_texts.h"

using namespace cohort;
using namespace cohort::core;
using namespace cohort::tests;
using nlohmann::json;

namespace {

std::string message_of(const std::string& text) {
  try {
    Tokenizer::parse(text, "t.json");
  } catch (const InputError& error) {
    return error.what();
  }
  return "accepted";
}

json good() {
  static const json file = json::parse(trained("deepseek", 300).to_json());
  return file;
}

void check_message(const std::string& said, const std::string& expected) {
  INFO(said);
  CHECK(said.rfind("t.json: ", 0) == 0);
  CHECK(said.find(expected) != said.npos);
  CHECK(said.find('\n') == said.npos);
  CHECK(said.find("json.exception") == said.npos);
  CHECK(said.size() < 400);
}

}  // namespace

TEST_CASE("What is wrong with a tokenizer.json is said in one line", "[core-tokenizer]") {
  struct Case {
    const char* pointer;  // what to replace
    json value;
    const char* expected;
  };
  const json byte_level = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}};
  const auto pattern = [](const char* regex) {
    return Case{"/pre_tokenizer/pretokenizers/0/pattern/Regex",
                regex,
                "pre_tokenizer.pretokenizers[0].pattern.Regex"};
  };
  json deep = "x";
  for (int i = 0; i < 100; ++i) deep = json::array({deep});
  const std::vector<Case> cases = {
      {"/model", nullptr, "model: should be an object, is null"},
      {"/model/type", "WordPiece", "model.type: \"WordPiece\""},
      {"/model/type", 3, "model.type: should be a string, is 3"},
      {"/model/dropout", 0.1, "model.dropout"},
      {"/model/dropout", "x", "model.dropout"},
      {"/model/continuing_subword_prefix", "##", "model.continuing_subword_prefix"},
      {"/model/end_of_word_suffix", "</w>", "model.end_of_word_suffix"},
      {"/model/ignore_merges", "yes", "model.ignore_merges: should be true or false"},
      {"/model/byte_fallback", 1, "model.byte_fallback"},
      {"/model/unk_token", 1, "model.unk_token"},
      {"/model/vocab", json::array(), "model.vocab: should be an object"},
      {"/model/vocab", json::object(), "model.merges[0]: "},
      {"/model/vocab/a", -1, "model.vocab: id of \"a\" is -1"},
      {"/model/vocab/a", 1.5, "model.vocab: id of \"a\" is 1.5"},
      {"/model/vocab/a", "7", "model.vocab: id of \"a\" is string"},
      {"/model/vocab/a", 7, "have the same id 7"},
      {"/model/vocab/a", 100000, "without gaps"},
      {"/model/vocab/a", 18446744073709551615u, "without gaps"},
      {"/model/merges", "a b", "model.merges: should be a list"},
      {"/model/merges/3", 1, "model.merges[3]"},
      {"/model/merges/3", {"a", "b", "c"}, "model.merges[3]"},
      {"/model/merges/3", {"a", 1}, "model.merges[3]"},
      {"/model/merges/3", "ab", "model.merges[3]: \"ab\" should be two tokens"},
      {"/model/merges/3", "a b c", "model.merges[3]"},
      {"/model/merges/3", {"a", "qq\n"}, "model.merges[3]: \"qq\\n\" is not in model.vocab"},
      {"/model/merges/3", {"z", "q"}, "model.merges[3]: \"zq\" is not in model.vocab"},
      {"/added_tokens", json::object(), "added_tokens: should be a list"},
      {"/added_tokens/0", 5, "added_tokens[0]: should be an object"},
      {"/added_tokens/0/id", -1, "added_tokens[0].id"},
      {"/added_tokens/0/id", 1ll << 40, "added_tokens[0].id"},
      {"/added_tokens/0/id", 5, "added_tokens[0]: \"<|begin|>\" has id 5 here and 0 before"},
      {"/added_tokens/0/content", "", "added_tokens[0].content"},
      {"/added_tokens/0/content",
       "<|new|>",
       "added_tokens[0]: id 0 is \"<|begin|>\" in model.vocab"},
      {"/added_tokens/1/content",
       "<|begin|>",
       "added_tokens[1]: \"<|begin|>\" has id 1 here and 0 before"},
      {"/added_tokens/0/special", nullptr, "added_tokens[0].special: should be true or false"},
      {"/normalizer", {{"type", "NFKC"}}, "normalizer.type: \"NFKC\""},
      {"/normalizer",
       {{"type", "Sequence"}, {"normalizers", {{{"type", "Lowercase"}}}}},
       "normalizer.normalizers[0].type"},
      {"/normalizer", "NFC", "normalizer: should be an object"},
      {"/decoder", nullptr, "decoder: null"},
      {"/decoder", {{"type", "Metaspace"}}, "decoder: \"Metaspace\""},
      {"/pre_tokenizer", nullptr, "pre_tokenizer: is null"},
      {"/pre_tokenizer", {{"type", "Whitespace"}}, "pre_tokenizer.type: \"Whitespace\""},
      {"/pre_tokenizer/pretokenizers", json::array(), "pre_tokenizer.pretokenizers: has 0"},
      {"/pre_tokenizer/pretokenizers", json(std::vector<json>(33, byte_level)), "has 33"},
      {"/pre_tokenizer/pretokenizers/0", byte_level, "pre_tokenizer.pretokenizers[0].type"},
      {"/pre_tokenizer/pretokenizers/0/type",
       "Punctu\nation",
       "\"Punctu\\nation\" is not supported"},
      {"/pre_tokenizer/pretokenizers/0/behavior",
       "Removed",
       "pretokenizers[0].behavior: \"Removed\""},
      {"/pre_tokenizer/pretokenizers/0/pattern",
       "x",
       "pretokenizers[0].pattern: should be an object"},
      {"/pre_tokenizer/pretokenizers/0/pattern", json::object(), "should hold Regex or String"},
      {"/pre_tokenizer/pretokenizers/0/pattern",
       {{"String", ""}},
       "pattern.String: should not be empty"},
      {"/pre_tokenizer/pretokenizers/3/add_prefix_space",
       nullptr,
       "pretokenizers[3].add_prefix_space"},
      {"/pre_tokenizer/pretokenizers/3", {{"type", "Split"}}, "pretokenizers[3].type"},
      {"/post_processor", deep, "nested deeper"},
      pattern("("),
      pattern("[a"),
      pattern("a**+*"),
      pattern("\\p{Klingon}"),
      pattern("(?<=a*)b"),
      pattern("\\"),
      pattern("a\\b"),
      pattern("(?m).\n"),
      pattern("(*UTF)a"),
      pattern("(?C1)"),
      pattern("[a[b]]"),
      pattern("[a&&b]"),
      pattern("(a)\\1"),
      pattern("(?R)"),
      pattern("\\K"),
      pattern("x{2}+"),
      pattern("\\xff"),
      pattern("(((((a{1,999}){1,999}){1,999}){1,999}){1,999})"),
  };
  for (const Case& test : cases) {
    json file = good();
    file[json::json_pointer(test.pointer)] = test.value;
    INFO(test.pointer << " = " << test.value);
    check_message(message_of(file.dump()), test.expected);
  }
  for (const char* key : {"model", "pre_tokenizer", "decoder"}) {
    json file = good();
    file.erase(key);
    check_message(message_of(file.dump()), fmt::format("'{}' is missing", key));
  }
  for (const char* key : {"vocab", "merges"}) {
    json file = good();
    file["model"].erase(key);
    check_message(message_of(file.dump()), fmt::format("model: '{}' is missing", key));
  }
  json file = good();
  file["model"]["vocab"]["not a byte"] = file["model"]["vocab"]["\u0100"];
  file["model"]["vocab"].erase("\u0100");
  check_message(message_of(file.dump()), "model.vocab: no token for byte 0x00 ('\u0100')");
  file = good();
  file["added_tokens"].push_back({{"id", 302},
                                  {"content", "<x>"},
                                  {"single_word", false},
                                  {"lstrip", false},
                                  {"rstrip", false},
                                  {"normalized", false},
                                  {"special", true}});
  check_message(message_of(file.dump()), "added_tokens: no token has id 300");
  file["added_tokens"].back()["id"] = 300;
  CHECK(message_of(file.dump()) == "accepted");
  file["added_tokens"].push_back(file["added_tokens"].back());
  check_message(message_of(file.dump()), "added_tokens: id 300 is given twice");
}

TEST_CASE("What is not JSON is refused with its line", "[core-tokenizer]") {
  const std::string text = good().dump(2);
  check_message(message_of(""), "line 1: not valid JSON");
  check_message(message_of("[]"), "should be an object");
  check_message(message_of(text.substr(0, text.size() / 2)), "not valid JSON");
  check_message(message_of(text + "}"), "JSON");
  check_message(message_of("{\n\n\"a\": \"\xFF\"}"), "line 3: not valid JSON");
  check_message(message_of(std::string(100000, '[')), "nested deeper");
  CHECK_THROWS_AS(Tokenizer::load("/no/such/tokenizer.json"), InputError);
  CHECK_THROWS_AS(Tokenizer::load("/"), InputError);
}

TEST_CASE("Merges may be written as one string or as a pair, and need no model type",
          "[core-tokenizer]") {
  json file = good();
  for (json& merge : file["model"]["merges"])
    merge = merge[0].get<std::string>() + " " + merge[1].get<std::string>();
  file["model"]["merges"].insert(file["model"]["merges"].begin(), "#version: 0.2");
  file["model"].erase("type");
  file.erase("normalizer");
  file["unknown"] = {{"kept", true}};
  const Tokenizer tokenizer = Tokenizer::parse(file.dump(), "strings");
  CHECK(tokenizer.encode(english(5)) == trained("deepseek", 300).encode(english(5)));
  CHECK(json::parse(tokenizer.to_json())["unknown"]["kept"] == true);
}

TEST_CASE("A pattern that explodes ends in an error, not in a hang", "[core-tokenizer]") {
  json file = good();
  file["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "(a+)+$";
  const Tokenizer tokenizer = Tokenizer::parse(file.dump(), "t.json");
  try {
    tokenizer.encode(std::string(40, 'a') + "!");
    FAIL("no error");
  } catch (const InputError& error) {
    check_message(error.what(), "pre_tokenizer.pretokenizers[0].pattern.Regex: the pattern fails");
  }
  CHECK(tokenizer.decode(tokenizer.encode("aab")) == "aab");  // and the tokenizer lives on
}

TEST_CASE("Oniguruma's patterns are translated where PCRE2 reads them differently",
          "[core-tokenizer]") {
  const auto matches = [](const char* pattern, const std::string& text) {
    MatchScratch scratch;
    const auto match = Pattern(pattern, "test").find(text, 0, scratch);
    return match ? text.substr(match->begin, match->end - match->begin) : "none";
  };
  CHECK(matches(R"(\s+)", "a \u0085\u00a0\u3000b") == " \u0085\u00a0\u3000");
  CHECK(matches(R"(\s)", "\u180e\u200b") == "none");  // PCRE2's own \s takes U+180E for a space
  CHECK(matches(R"([^\S\n]+)", "\n\u2003x") == "\u2003");
  CHECK(matches(R"([\s\-x]+)", "!- x!") == "- x");
  CHECK(matches(R"([\d-]+)", "a1-2b") == "1-2");
  CHECK(matches(R"(\w+)", "-é\u0301_٣\u2160!") == "é\u0301_٣\u2160");
  CHECK(matches(R"(\h+)", "xyz09aFg") == "09aF");
  CHECK(matches(R"(\u00e9)", "aé") == "é");
  CHECK(matches(R"((?i:'S))", "'\u017f") == "'\u017f");
  CHECK(matches("^b", "a\nb") == "b");
  CHECK(matches(".+", "\nab\nc") == "ab");
  CHECK(matches(R"(\v)", "\n\x0b") == "\x0b");
}

TEST_CASE("A damaged file is refused in one line or works", "[core-tokenizer]") {
  const std::string whole = trained("deepseek", 262).to_json();
  const json parsed = json::parse(whole);
  std::vector<json::json_pointer> places;
  const json flat = parsed.flatten();
  for (const auto& [pointer, value] : flat.items())
    if (pointer.find("/vocab/") == pointer.npos || places.size() % 8 == 0)
      places.emplace_back(pointer);
  const std::vector<json> values = {nullptr,
                                    true,
                                    -1,
                                    0,
                                    7,
                                    1e300,
                                    "",
                                    "a",
                                    "\n",
                                    "(",
                                    "ByteLevel",
                                    "Sequence",
                                    json::array(),
                                    json::object(),
                                    {{"type", "Split"}},
                                    4294967296ll};
  std::mt19937 random(11);
  int refused = 0;
  for (int i = 0; i < 500; ++i) {
    std::string damaged = whole;
    if (i % 2) {
      json file = parsed;
      file[places[random() % places.size()]] = values[random() % values.size()];
      damaged = file.dump();
    } else {
      const size_t at = random() % damaged.size();
      switch (random() % 4) {
        case 0:
          damaged.resize(at);
          break;
        case 1:
          damaged[at] = static_cast<char>(random());
          break;
        case 2:
          damaged.erase(at, 1 + random() % 40);
          break;
        default:
          damaged.insert(at, damaged.substr(random() % damaged.size(), random() % 40));
      }
    }
    try {
      const Tokenizer tokenizer = Tokenizer::parse(damaged, "t.json");
      const std::string text = english(i, 5) + "<|end|>";
      tokenizer.decode(tokenizer.encode(text));
      Tokenizer::parse(tokenizer.to_json(), "again");
    } catch (const InputError& error) {
      ++refused;
      const std::string said = error.what();
      REQUIRE(said.rfind("t.json: ", 0) == 0);
      REQUIRE(said.find('\n') == said.npos);
    }
  }
  CHECK(refused > 200);
  CHECK(refused < 500);
}
