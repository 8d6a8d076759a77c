#include "core/tokenizer/tokenizer.h"

#include <atomic>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>
#include <thread>

#include "core/base/error.h"
#include "core/tokenizer/bpe.h"
#include "core/tokenizer/unicode.h"
#include "tests/catch.h"
#include "tests/core/tokenizer_texts.h"
#include "tests/fixtures.h"

using namespace cohort;
using namespace cohort::core;
using namespace cohort::tests;
using nlohmann::json;
using Ids = std::vector<int32_t>;

TEST_CASE("Ids and decoded text equal those of Hugging Face's tokenizers",
          "[core-tokenizer][parity]") {
  for (const auto& folder : cases("tokenizer")) {
    const Tokenizer loaded = Tokenizer::load((folder / "tokenizer.json").string());
    const Tokenizer again = Tokenizer::parse(loaded.to_json(), "written again");
    REQUIRE(again.to_json() == loaded.to_json());
    std::ifstream file(folder / "cases.jsonl");
    int num_cases = 0;
    for (std::string line; std::getline(file, line); ++num_cases) {
      const json expected = json::parse(line);
      INFO(folder.string() << " line " << num_cases + 1 << ": " << expected["text"]);
      const std::string text = expected["text"].get<std::string>();
      const Ids ids = loaded.encode(text);
      REQUIRE(ids == expected["ids"].get<Ids>());
      REQUIRE(again.encode(text) == ids);
      REQUIRE(loaded.decode(ids) == expected["decoded"].get<std::string>());
    }
    REQUIRE(num_cases > 0);
  }
}

TEST_CASE("Decoding inverts encoding for any Unicode text", "[core-tokenizer]") {
  for (const char* kind : {"gpt2", "deepseek", "qwen2"}) {
    const Tokenizer& tokenizer = trained(kind, 600);
    std::mt19937 random(7);
    for (int i = 0; i < 400; ++i) {
      const std::string text = random_text(random, 80);
      const std::string decoded = tokenizer.decode(tokenizer.encode(text));
      INFO(kind << " " << json(text).dump());
      REQUIRE(decoded == (std::string(kind) == "qwen2" ? nfc(text) : text));
    }
  }
}

TEST_CASE("Bytes that are not UTF-8 keep their ids and become U+FFFD only in decode",
          "[core-tokenizer]") {
  const Tokenizer& tokenizer = trained("deepseek", 600);
  std::mt19937 random(8);
  for (int i = 0; i < 400; ++i) {
    std::string text;
    while (text.size() < 60)
      text += random() % 3 ? std::string(1, static_cast<char>(random())) : random_text(random, 4);
    std::string bytes;
    const Ids ids = tokenizer.encode(text);
    for (int32_t id : ids) bytes += tokenizer.token_bytes(id);
    REQUIRE(bytes == text);
    REQUIRE(tokenizer.decode(ids) == replace_invalid_utf8(text));
  }
  CHECK(replace_invalid_utf8("a\xFFz") == "a\uFFFDz");
  CHECK(replace_invalid_utf8("\xE2\x82z\xF0\x9F\x99") ==
        "\uFFFDz\uFFFD");                                               // cut characters: one each
  CHECK(replace_invalid_utf8("\xED\xA0\x80") == "\uFFFD\uFFFD\uFFFD");  // a surrogate: one a byte
}

TEST_CASE("Special tokens are recognised, or taken for text", "[core-tokenizer]") {
  const Tokenizer& tokenizer = trained("deepseek", 400);
  const Ids ids = tokenizer.encode("<|begin|>on<|end|");
  CHECK(ids.front() == 0);
  CHECK(std::count(ids.begin(), ids.end(), 1) == 0);
  CHECK(tokenizer.decode(ids) == "<|begin|>on<|end|");
  CHECK(tokenizer.decode(ids, true) == "on<|end|");
  const Ids plain = tokenizer.encode("<|begin|>on", false);
  CHECK(plain.size() > 3);
  CHECK(std::count(plain.begin(), plain.end(), 0) == 0);
  CHECK(tokenizer.decode(plain) == "<|begin|>on");
  CHECK(tokenizer.encode("").empty());
  CHECK(tokenizer.token_id("<|end|>") == 1);
  CHECK_FALSE(tokenizer.token_id("<|nothing|>").has_value());
}

TEST_CASE("Ids without a token decode to nothing, and have no bytes", "[core-tokenizer]") {
  const Tokenizer& tokenizer = trained("gpt2", 300);
  const int32_t size = static_cast<int32_t>(tokenizer.vocab_size());
  CHECK(tokenizer.decode(Ids{-1, size, size + 7}).empty());
  CHECK_THROWS_AS(tokenizer.token_bytes(size), InputError);
  CHECK_THROWS_AS(tokenizer.token_bytes(-1), InputError);
}

// The expected ids of this test and the next were confirmed with the tokenizers library.
TEST_CASE("Added tokens honour single_word, lstrip, rstrip and normalized", "[core-tokenizer]") {
  json file = json::parse(trained("gpt2", 258).to_json());  // bytes alone
  file["normalizer"] = {{"type", "NFC"}};
  const auto add = [&](const char* content, const char* flag, bool special) {
    json token = {
        {"id", 258 + file["added_tokens"].size() - 2}, {"content", content}, {"special", special}};
    for (const char* name : {"single_word", "lstrip", "rstrip", "normalized"})
      token[name] = std::string(name) == flag;
    file["added_tokens"].push_back(token);
  };
  add("<word>", "single_word", true);     // 258
  add("<left>", "lstrip", true);          // 259
  add("<right>", "rstrip", true);         // 260
  add("e\u0301<n>", "normalized", true);  // 261, found as é
  add("<ab>", "", false);                 // 262
  add("<ab><cd>", "", true);              // 263, longer than the one before
  const Tokenizer tokenizer = Tokenizer::parse(file.dump(), "flags");
  const auto tokens = [&](const char* text, bool special = true) {
    std::string shown;
    for (int32_t id : tokenizer.encode(text, special))
      shown += id < 258 ? tokenizer.token_bytes(id) : fmt::format("({})", id);
    return shown;
  };
  CHECK(tokens("a <word>, <word>b é<word> <word>") == "a (258), <word>b é<word> (258)");
  CHECK(tokens("a \u3000\n<left> b") == "a(259) b");
  CHECK(tokens("a <right> \u00a0\tb<right>") == "a (260)b(260)");
  CHECK(tokens("<right> <left>") == "(260)(259)");
  CHECK(tokens("\u00e9<n> e\u0301<n>") == "(261) (261)");
  CHECK(tokens("<ab><ab><cd><ab><c") == "(262)(263)(262)<c");
  CHECK(tokens("<ab> <right>", false) == "(262) <right>");
  CHECK(tokens("<ab><cd>", false) == "<ab><cd>");
}

TEST_CASE("Pre-tokenisers of many parts cut as Hugging Face's do", "[core-tokenizer]") {
  const auto cut = [](json parts, const std::string& text) {
    // One merge rule would join any two letters: what stays apart was cut.
    json file = json::parse(trained("gpt2", 258).to_json());
    file["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", parts}};
    file["model"]["ignore_merges"] = true;
    std::string joined;
    const std::vector<std::string> words = {
        "ab", "a1", "1a", "12", "Ġa", "ĠĠ", "bĊ", "ba", "Ġ1", "aĠ"};
    for (const std::string& word : words)
      file["model"]["vocab"][word] = file["model"]["vocab"].size();
    const Tokenizer tokenizer = Tokenizer::parse(file.dump(), "parts");
    for (int32_t id : tokenizer.encode(text)) joined += "[" + tokenizer.token_bytes(id) + "]";
    return joined;
  };
  const auto split = [](json pattern) {
    return json{
        {"type", "Split"}, {"pattern", pattern}, {"behavior", "Isolated"}, {"invert", false}};
  };
  const auto byte_level = [](bool prefix, bool regex) {
    return json{{"type", "ByteLevel"},
                {"add_prefix_space", prefix},
                {"trim_offsets", true},
                {"use_regex", regex}};
  };
  const json digits = {{"type", "Digits"}, {"individual_digits", true}};
  const json runs_of_digits = {{"type", "Digits"}, {"individual_digits", false}};
  CHECK(cut({byte_level(false, false)}, "ab") == "[ab]");
  CHECK(cut({byte_level(false, true)}, "12a") == "[12][a]");
  CHECK(cut({digits, byte_level(false, false)}, "12") == "[1][2]");
  CHECK(cut({runs_of_digits, byte_level(false, false)}, "a12b") == "[a][12][b]");
  CHECK(cut({byte_level(true, false)}, "a") == "[ a]");
  CHECK(cut({split({{"String", "b"}}), byte_level(true, false)}, "ab") == "[ a][ ][b]");
  CHECK(cut({split({{"Regex", R"(\s)"}}), byte_level(false, false)}, "  b\n") == "[ ][ ][b][\n]");
  CHECK(cut({split({{"Regex", R"((?=\d))"}}), byte_level(false, false)}, "a1a1") == "[a][1a][1]");
  CHECK(cut({split({{"Regex", "a*"}}), byte_level(false, false)}, "ba") == "[b][a]");
}

TEST_CASE("A merge of lower rank comes first whatever the length of the word", "[core-tokenizer]") {
  std::mt19937 random(9);
  std::array<int32_t, 256> bytes;
  std::iota(bytes.begin(), bytes.end(), 0);
  for (int round = 0; round < 20; ++round) {
    std::vector<Bpe::Merge> merges;  // random pairs of the few bytes in use and of earlier results
    std::vector<int32_t> known = {'a', 'b', 'c'};
    for (int i = 0; i < 12; ++i) {
      const int32_t result = 256 + i;
      merges.push_back({known[random() % known.size()], known[random() % known.size()], result});
      known.push_back(result);
    }
    const Bpe bpe(bytes, merges);
    for (size_t length : {1, 2, 3, 10, 95, 96, 97, 98, 400}) {
      std::string word;
      for (size_t i = 0; i < length; ++i) word += static_cast<char>('a' + random() % 3);
      Ids expected(word.begin(), word.end());
      for (bool changed = true; changed;) {  // the definition, taken literally
        changed = false;
        for (size_t rank = 0; rank < merges.size() && !changed; ++rank) {
          // Of a pair that stands twice the later counts.
          const auto same = [&](const Bpe::Merge& m) {
            return m.left == merges[rank].left && m.right == merges[rank].right;
          };
          if (std::any_of(merges.begin() + rank + 1, merges.end(), same)) continue;
          for (size_t i = 0; i + 1 < expected.size() && !changed; ++i) {
            if (expected[i] != merges[rank].left || expected[i + 1] != merges[rank].right) continue;
            expected[i] = merges[rank].result;
            expected.erase(expected.begin() + i + 1);
            changed = true;
          }
        }
      }
      Bpe::Scratch scratch;
      Ids ids;
      bpe.encode(word, scratch, ids);
      REQUIRE(ids == expected);
    }
  }
}

TEST_CASE("Many threads encode and decode with one tokenizer", "[core-tokenizer]") {
  const Tokenizer& tokenizer = trained("deepseek", 800);
  std::mt19937 random(10);
  std::vector<std::string> texts;
  std::vector<Ids> expected;
  for (int i = 0; i < 100; ++i) texts.push_back(random_text(random, 200) + english(i));
  for (const auto& text : texts) expected.push_back(trained("deepseek", 800).encode(text));
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (size_t first = 0; first < 4; ++first)
    threads.emplace_back([&, first] {
      for (size_t i = first * 25; i < first * 25 + 200; ++i) {
        const size_t at = i % texts.size();
        if (tokenizer.encode(texts[at]) != expected[at] ||
            tokenizer.decode(expected[at]) != texts[at])
          ++wrong;
      }
    });
  for (auto& thread : threads) thread.join();
  CHECK(wrong == 0);
}

TEST_CASE("Long runs of one character are encoded in time", "[core-tokenizer]") {
  for (const char* kind : {"gpt2", "deepseek", "qwen2"}) {
    const Tokenizer& tokenizer = trained(kind, 400);
    for (std::string unit : {" ", "a", "\n", "7", "!a", "<|", "\u0301\u0323", "\x80", "字"}) {
      std::string text;
      while (text.size() < 300'000) text += unit;
      text += "x";
      const std::string decoded = tokenizer.decode(tokenizer.encode(text));
      const std::string clean = replace_invalid_utf8(text);
      CHECK(decoded == (std::string(kind) == "qwen2" ? nfc(clean) : clean));
    }
  }
}
