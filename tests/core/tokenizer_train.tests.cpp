#include <unistd.h>
#include <zlib.h>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <random>

#include "core/base/error.h"
#include "core/tokenizer/merge_learner.h"
#include "core/tokenizer/text_files.h"
#include "core/tokenizer/tokenizer.h"
#include "tests/catch.h"
#include "tests/core/tokenizer_texts.h"

using namespace cohort;
using namespace cohort::core;
using namespace cohort::tests;
using nlohmann::json;
namespace fs = std::filesystem;

namespace {

Tokenizer train_on(std::vector<std::string> texts, const TokenizerTrainOptions& options) {
  size_t next = 0;
  return train_tokenizer(
      [&](std::string& text) {
        if (next == texts.size()) return false;
        text = texts[next++];
        return true;
      },
      options);
}

struct Folder {
  fs::path path = fs::temp_directory_path() / ("cohort_tokenizer_" + std::to_string(getpid()));
  Folder() { fs::create_directories(path); }
  ~Folder() { fs::remove_all(path); }
  std::string write(const std::string& name, const std::string& text) const {
    std::ofstream(path / name, std::ios::binary) << text;
    return (path / name).string();
  }
};

std::string message_of(const std::function<void()>& act) {
  try {
    act();
  } catch (const InputError& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("Training merges the most frequent pair first, the lowest ids among equals",
          "[core-tokenizer]") {
  TokenizerTrainOptions options;
  options.vocab_size = 258 + 4;
  options.pretokenizer = "gpt2";
  const Tokenizer tokenizer = train_on({"aaab aaab abab"}, options);
  const json file = json::parse(tokenizer.to_json());
  // Words: aaab, Ġaaab, Ġabab. Pairs: ab 4, aa 4 (a, a before a, b: lower ids), then as merged.
  const std::vector<std::vector<std::string>> expected = {{"a", "a"}, {"a", "b"}, {"aa", "ab"}};
  const json& merges = file["model"]["merges"];
  CHECK(merges[0] == json(expected[0]));
  CHECK(merges[1] == json(expected[1]));
  CHECK(merges[2] == json(expected[2]));
  CHECK(merges.size() == 3);  // nothing else is seen twice
  CHECK(tokenizer.vocab_size() == 258 + 3);
  CHECK(file["model"]["vocab"]["aa"] == 258);
  CHECK(tokenizer.token_id("<|begin|>") == 0);
  CHECK(tokenizer.token_id("<|end|>") == 1);
  CHECK(tokenizer.token_id("!") == 2);
}

TEST_CASE("Merges equal those of counting all pairs anew at each step", "[core-tokenizer]") {
  std::mt19937 random(3);
  for (int round = 0; round < 30; ++round) {
    CountedWords words;
    MergeTask task;
    task.vocabulary = {"a", "b", "c", "d"};
    std::vector<std::pair<std::vector<int32_t>, int64_t>> slow;
    for (int i = 0; i < 40; ++i) {
      std::vector<int32_t> word(1 + random() % 7);
      for (auto& symbol : word) symbol = static_cast<int32_t>(random() % 4);
      words.symbols.insert(words.symbols.end(), word.begin(), word.end());
      words.begins.push_back(words.symbols.size());
      words.counts.push_back(1 + random() % 50);
      slow.emplace_back(word, words.counts.back());
    }
    learn_merges(words, 4 + 8, 2, task);
    REQUIRE(task.vocabulary.size() == 12);
    for (const auto& [left, right, result] : task.merges) {
      std::map<std::pair<int32_t, int32_t>, int64_t> counts;
      for (const auto& [word, count] : slow)
        for (size_t i = 0; i + 1 < word.size(); ++i) counts[{word[i], word[i + 1]}] += count;
      const auto best = std::max_element(counts.begin(), counts.end(), [](auto& a, auto& b) {
        return a.second != b.second ? a.second < b.second : a.first > b.first;
      });
      REQUIRE(best->first == std::make_pair(left, right));
      for (auto& [word, count] : slow)
        for (size_t i = 0; i + 1 < word.size(); ++i)
          if (word[i] == left && word[i + 1] == right) {
            word[i] = result;
            word.erase(word.begin() + i + 1);
          }
    }
  }
}

TEST_CASE("The same texts in another order give the same tokenizer", "[core-tokenizer]") {
  TokenizerTrainOptions options;
  options.vocab_size = 500;
  const std::vector<std::string> texts = {english(1), english(2), english(3), english(4)};
  const std::string file = train_on(texts, options).to_json();
  CHECK(train_on(texts, options).to_json() == file);
  CHECK(train_on({texts[3], texts[1], texts[2], texts[0]}, options).to_json() == file);
  CHECK(train_on({texts[0], texts[1]}, options).to_json() != file);
}

TEST_CASE("A pair seen too seldom is not merged", "[core-tokenizer]") {
  TokenizerTrainOptions options;
  options.vocab_size = 1000;
  options.min_frequency = 3;
  CHECK(train_on({"xy xy"}, options).vocab_size() == 258);
  CHECK(train_on({"xy xy\nxy"}, options).vocab_size() > 258);
}

TEST_CASE("No merge makes a special token", "[core-tokenizer]") {
  TokenizerTrainOptions options;
  options.vocab_size = 400;
  options.pretokenizer = "gpt2";
  options.special_tokens = {"ab"};
  const Tokenizer tokenizer = train_on({"ab ab abab abab"}, options);
  for (int32_t id : tokenizer.encode("ab abab", false)) CHECK(id != 0);
  CHECK(tokenizer.encode("ab") == std::vector<int32_t>{0});
}

TEST_CASE("Files are read block by block with the result of reading them whole",
          "[core-tokenizer]") {
  const Folder folder;
  std::string text;
  for (unsigned i = 0; text.size() < 2'300'000; ++i) text += english(i % 500) + "end\nnext ";
  const std::string plain = folder.write("plain.txt", text);
  const std::string packed = (folder.path / "packed.gz").string();
  gzFile file = gzopen(packed.c_str(), "wb1");
  REQUIRE(gzwrite(file, text.data(), static_cast<unsigned>(text.size())) > 0);
  gzclose(file);
  TextFiles blocks({plain, packed, folder.write("empty.txt", "")});
  std::string all;
  int num_blocks = 0;
  for (std::string block; blocks.next(block); ++num_blocks) all += block;
  CHECK(all == text + text);
  CHECK(num_blocks == 6);
  TokenizerTrainOptions options;
  options.vocab_size = 420;
  const std::string whole = train_on({text}, options).to_json();
  CHECK(train_tokenizer({plain}, options).to_json() == whole);
  CHECK(train_tokenizer({packed}, options).to_json() == whole);
}

TEST_CASE("Blocks are cut where no word is", "[core-tokenizer]") {
  CHECK(cut_position("one\ntwo\nthree") == 8);
  CHECK(cut_position("one\ntwo\n\n") == 4);    // the blank lines may go on
  CHECK(cut_position("one two\n  ") == 8);     // no better place
  CHECK(cut_position("ab\xE5\xAD\x97") == 2);  // before the last character: more of it may follow
  CHECK(cut_position("\xE5\xAD\x97") == 3);    // never nothing
  CHECK(cut_position(std::string(9, '\x80')) == 9);
}

TEST_CASE("A trained tokenizer is saved and loaded", "[core-tokenizer]") {
  const Folder folder;
  const Tokenizer& tokenizer = trained("qwen2", 500);
  const std::string path = (folder.path / "tokenizer.json").string();
  tokenizer.save(path);
  const Tokenizer loaded = Tokenizer::load(path);
  CHECK(loaded.to_json() == tokenizer.to_json());
  CHECK(loaded.encode(english(77)) == tokenizer.encode(english(77)));
  CHECK(std::distance(fs::directory_iterator(folder.path), fs::directory_iterator()) == 1);
  CHECK_THROWS_AS(tokenizer.save((folder.path / "no/where.json").string()), InputError);
  CHECK_THROWS_AS(tokenizer.save(folder.path.string()), InputError);
}

TEST_CASE("Bad training options and inputs are named", "[core-tokenizer]") {
  const Folder folder;
  const auto said = [&](auto change, std::vector<std::string> texts = {"some text"}) {
    TokenizerTrainOptions options;
    change(options);
    return message_of([&] { train_on(texts, options); });
  };
  using O = TokenizerTrainOptions;
  const auto check = [](const std::string& message, const std::string& part) {
    INFO(message);
    CHECK(message.find(part) != message.npos);
  };
  check(said([](O& o) { o.vocab_size = 257; }), "vocab_size 257");
  check(said([](O& o) { o.vocab_size = -1; }), "vocab_size -1");
  check(said([](O& o) { o.min_frequency = 0; }), "min_frequency");
  check(said([](O& o) { o.pretokenizer = "llama"; }), "'llama' is unknown");
  check(said([](O& o) { o.special_tokens = {"<a>", "<a>"}; }), "twice");
  check(said([](O& o) { o.special_tokens = {""}; }), "empty");
  check(said([](O& o) { o.special_tokens = {"\xFF<"}; }), "not UTF-8");
  check(said([](O& o) { o.special_tokens = {"x"}; }), "single byte");
  check(said([](O&) {}, {}), "no text");
  check(said([](O&) {}, {"", "\xFF"}), "no text");
  const auto file_said = [](const std::string& path) {
    return message_of([&] { train_tokenizer({path}, TokenizerTrainOptions{}); });
  };
  check(file_said("/no/such/file"), "/no/such/file");
  check(file_said(folder.path.string()), "is a folder");
  check(file_said(folder.write("a.zst", "\x28\xB5\x2F\xFD....")), "zstd");
  check(file_said(folder.write("cut.gz", std::string("\x1F\x8B\x08\0\0\0\0\0\0\x03\x4B\x4C", 12))),
        "cut.gz");
}
