// Preparing token sets from text.
#include <nlohmann/json.hpp>

#include <set>

#include "core/base/error.h"
#include "core/base/rng.h"
#include "core/data/loader.h"
#include "core/data/prepare.h"
#include "tests/catch.h"
#include "tests/core/data_scratch.h"

using namespace cohort;
using namespace cohort::core;
using cohort::tests::read_bytes;
using cohort::tests::ScratchFolder;

namespace {

/// Bytes as tokens, after two special ones.
std::vector<int32_t> bytes_as_tokens(std::string_view text) {
  std::vector<int32_t> ids;
  for (const char c : text) ids.push_back(2 + static_cast<unsigned char>(c));
  return ids;
}

PrepareOptions options_for(const ScratchFolder& folder, std::vector<std::string> inputs) {
  PrepareOptions options;
  options.inputs = std::move(inputs);
  options.out = folder / "out";
  options.vocab_size = 258;
  options.begin_token = 0;
  options.end_token = 1;
  options.validation_fraction = 0;
  options.threads = 2;
  return options;
}

/// The documents of a set, begin and end tokens checked and taken off.
std::vector<std::string> documents_of(const std::string& prefix) {
  const IndexedDataset set(prefix);
  std::vector<std::string> texts;
  for (int64_t d = 0; d < set.num_documents(); ++d) {
    std::vector<int64_t> tokens(set.document_length(d));
    set.read(d, 0, static_cast<int64_t>(tokens.size()), tokens.data());
    REQUIRE(tokens.size() >= 2);
    CHECK(tokens.front() == 0);
    CHECK(tokens.back() == 1);
    texts.emplace_back();
    for (size_t i = 1; i + 1 < tokens.size(); ++i) texts.back() += static_cast<char>(tokens[i] - 2);
  }
  return texts;
}

std::string json_line(const std::string& text) {
  return nlohmann::json{{"text", text}}.dump() + "\n";
}

std::string some_lines(int count, int first = 0) {
  std::string lines;
  for (int i = first; i < first + count; ++i)
    lines += json_line("document number " + std::to_string(i));
  return lines;
}

using Lines = std::vector<std::string>;

}  // namespace

TEST_CASE("documents of all inputs arrive in order, with their counts in the card",
          "[core][core-data]") {
  ScratchFolder folder;
  folder.write("a.jsonl", json_line("one") + json_line("two \u00e9") + json_line("one"));
  folder.write("b.txt", "three\n");
  folder.write("c.jsonl", json_line("x") + json_line("two \u00e9") + "{oops\n" + json_line("  "));
  PrepareOptions options =
      options_for(folder, {folder / "a.jsonl", folder / "b.txt", folder / "c.jsonl"});
  options.min_chars = 3;
  const DataCard card = prepare(options, bytes_as_tokens);
  CHECK(documents_of(folder / "out/train") == Lines{"one", "two \u00e9", "three"});
  CHECK(card.train.documents == 3);
  CHECK(card.train.tokens == (3 + 2) + (6 + 2) + (5 + 2));
  CHECK(card.train.bytes == (3 + 1) + (6 + 1) + (5 + 1));
  REQUIRE(card.sources.size() == 3);
  CHECK(card.sources[0].documents == 2);
  CHECK(card.sources[0].duplicates == 1);
  CHECK(card.sources[0].tokens == 13);
  CHECK(card.sources[0].text_bytes == 9);
  CHECK(card.sources[0].file_bytes == static_cast<int64_t>(read_bytes(folder / "a.jsonl").size()));
  CHECK(card.sources[0].xxh3 == file_xxh3(folder / "a.jsonl"));
  CHECK(card.sources[2].documents == 0);
  CHECK(card.sources[2].duplicates == 1);
  CHECK(card.sources[2].too_short == 2);
  CHECK(card.sources[2].broken == 1);
  CHECK(card.sources[2].reasons ==
        Lines{(folder / "c.jsonl") + ":3: not JSON: wrong at byte 2 of the line"});
  CHECK(nlohmann::json::parse(read_bytes(folder / "out/data_card.json")) ==
        nlohmann::json(card.to_json()));
  CHECK(card.to_json()["total"]["dropped"]["duplicates"] == 2);
  CHECK(IndexedDataset(folder / "out/train").info().bytes == 17);
  CHECK(IndexedDataset(folder / "out/train").info().begin_token == 0);
  for (const auto& entry : std::filesystem::directory_iterator(options.out))
    CHECK(entry.path().extension() != ".partial");
  CHECK_FALSE(std::filesystem::exists(folder / "out/validation.idx"));
}

TEST_CASE("the number of threads changes nothing", "[core][core-data]") {
  ScratchFolder folder;
  std::string lines;
  for (int i = 0; i < 3000; ++i)  // Some MiB: several batches.
    lines += json_line(std::string(500 + random_bits(1, 2, i) % 1000, 'a' + i % 26) +
                       std::to_string(i % 2500));
  PrepareOptions options = options_for(folder, {folder.write("a.jsonl", lines)});
  options.validation_fraction = 0.1;
  Lines written;
  for (const int threads : {1, 2, 5}) {
    options.threads = threads;
    prepare(options, bytes_as_tokens);
    std::string all;
    for (const char* name : {"train.bin",
                             "train.idx",
                             "train.json",
                             "validation.bin",
                             "validation.idx",
                             "validation.json",
                             "validation.txt",
                             "data_card.json"})
      all += read_bytes(folder / "out" + std::string("/") + name);
    written.push_back(all);
  }
  CHECK((written[0] == written[1]));
  CHECK((written[0] == written[2]));
}

TEST_CASE("a text lands on the same side whatever else there is", "[core][core-data]") {
  ScratchFolder folder;
  PrepareOptions options = options_for(folder, {folder.write("a.jsonl", some_lines(2000))});
  options.validation_fraction = 0.1;
  prepare(options, bytes_as_tokens);
  const Lines first = documents_of(folder / "out/validation");
  CHECK(std::abs(static_cast<double>(first.size()) - 200) < 70);  // 5 sigma

  options.inputs = {folder.write("b.jsonl", some_lines(1000, 5000)), folder / "a.jsonl"};
  prepare(options, bytes_as_tokens);
  const Lines more = documents_of(folder / "out/validation");
  CHECK(more.size() > first.size());
  CHECK(Lines(more.end() - static_cast<int64_t>(first.size()), more.end()) == first);

  options.validation_fraction = 0.2;
  prepare(options, bytes_as_tokens);
  const Lines wider = documents_of(folder / "out/validation");
  const std::set<std::string> held_out(wider.begin(), wider.end());
  for (const auto& text : more) CHECK(held_out.count(text) == 1);
  for (const auto& text : documents_of(folder / "out/train")) CHECK(held_out.count(text) == 0);

  // For ever: XXH3 of these texts, as any other program computes it, over 2^32.
  CHECK(is_validation("abc", 0.5359) == true);
  CHECK(is_validation("abc", 0.5358) == false);
  CHECK(is_validation("anything", 1.0));
  CHECK_FALSE(is_validation("anything", 0.0));
}

TEST_CASE("the held-out text is kept beside its tokens, byte for byte", "[core][core-data]") {
  ScratchFolder folder;
  PrepareOptions options = options_for(
      folder, {folder.write("a.jsonl", some_lines(500) + json_line("two\nlines \u00e9"))});
  options.validation_fraction = 0.3;
  const DataCard card = prepare(options, bytes_as_tokens);
  std::string joined;
  for (const auto& text : documents_of(folder / "out/validation")) joined += text + "\n";
  CHECK(read_bytes(folder / "out/validation.txt") == joined);
  const ValidationSet set(folder / "out/validation", 32, 258);
  CHECK(set.num_bytes() == static_cast<int64_t>(joined.size()));
  CHECK(card.validation.bytes == set.num_bytes());
  CHECK(card.validation_gzip_bits_per_byte == gzip_bits_per_byte(folder / "out/validation.txt"));
  CHECK(card.validation_gzip_bits_per_byte > 0.5);
  // With the begin token before it every token of the text is a target; the end token stands for
  // the newline.
  CHECK(set.num_tokens() - set.num_documents() == set.num_bytes());

  options.validation_fraction = 0;
  prepare(options, bytes_as_tokens);
  for (const char* ending : {".bin", ".idx", ".json", ".txt"})
    CHECK_FALSE(std::filesystem::exists(folder / "out/validation" + ending));
}

TEST_CASE("broken input is skipped and counted, or refused, as asked", "[core][core-data]") {
  ScratchFolder folder;
  folder.write("in/a.jsonl", json_line("fine") + "{\"text\": 1}\n" + json_line("good"));
  folder.write("in/b.txt", "bad \xFF");
  folder.write("in/c.txt", "");
  folder.write("in/d.jsonl.gz", "\x1f\x8b\x08 and no more");
  PrepareOptions options = options_for(folder, {folder / "in"});
  const DataCard card = prepare(options, bytes_as_tokens);
  CHECK(documents_of(folder / "out/train") == Lines{"fine", "good"});
  CHECK(card.total().broken == 4);
  const auto only_reason = [&](size_t source) {
    REQUIRE(card.sources[source].reasons.size() == 1);
    return card.sources[source].reasons[0].substr(folder.path.size());
  };
  CHECK(only_reason(0) == "/in/a.jsonl:2: field 'text' is not a string");
  CHECK(only_reason(1) == "/in/b.txt:1: invalid UTF-8 at byte 5 of the line");
  CHECK(only_reason(2) == "/in/c.txt:1: an empty file");
  CHECK_THAT(only_reason(3), Catch::Contains("/in/d.jsonl.gz:1: the gzip stream is "));

  options.stop_at_broken = true;
  options.out = folder / "other";
  CHECK_THROWS_WITH(prepare(options, bytes_as_tokens),
                    Catch::Contains("a.jsonl:2: field 'text' is not a string"));
  CHECK(std::filesystem::is_empty(folder / "other"));
}

TEST_CASE("many broken lines are all counted and some told", "[core][core-data]") {
  ScratchFolder folder;
  std::string lines = json_line("fine");
  for (int i = 0; i < 100; ++i) lines += "{\n";
  const DataCard card =
      prepare(options_for(folder, {folder.write("a.jsonl", lines)}), bytes_as_tokens);
  CHECK(card.sources[0].broken == 100);
  CHECK(card.sources[0].reasons.size() == 10);
}

TEST_CASE("a preparation that cannot be done says why", "[core][core-data]") {
  ScratchFolder folder;
  const std::string good = folder.write("a.txt", "text");
  const auto refusal = [&](auto change) -> std::string {
    PrepareOptions options = options_for(folder, {good});
    change(options);
    try {
      prepare(options, bytes_as_tokens);
    } catch (const InputError& error) {
      CHECK(std::string(error.what()).find('\n') == std::string::npos);
      return error.what();
    }
    return "";
  };
  using Catch::Contains;
  using Options = PrepareOptions;
  CHECK_THAT(refusal([](Options& o) { o.inputs.clear(); }), Contains("no input"));
  CHECK_THAT(refusal([](Options& o) { o.validation_fraction = 1; }), Contains("not in [0, 1)"));
  CHECK_THAT(refusal([](Options& o) { o.validation_fraction = -0.1; }), Contains("not in [0, 1)"));
  CHECK_THAT(refusal([](Options& o) { o.min_chars = -1; }), Contains("--min-chars -1"));
  CHECK_THAT(refusal([](Options& o) { o.threads = -1; }), Contains("--threads -1"));
  CHECK_THAT(refusal([](Options& o) { o.text.field = ""; }), Contains("--field"));
  CHECK_THAT(refusal([](Options& o) { o.out = ""; }), Contains("--out"));
  CHECK_THAT(refusal([&](Options& o) { o.out = good + "/x"; }), Contains("cannot be made"));
  CHECK_THAT(refusal([](Options& o) { o.inputs = {"/no/such"}; }), Contains("/no/such: no such"));
  CHECK_THAT(refusal([](Options& o) { o.min_chars = 100; }),
             Contains("no document is left for training: of 1 read, 0 were held out, 0 duplicates, "
                      "1 too short"));
  CHECK_THAT(refusal([&](Options& o) { o.inputs = {folder.write("bad.jsonl", "x\n")}; }),
             Contains("1 broken (the first: ") && Contains("bad.jsonl:1: not JSON"));
  CHECK_THAT(refusal([](Options& o) { o.tokenizer = "/no/tokenizer.json"; }),
             Contains("/no/tokenizer.json"));
  CHECK_FALSE(std::filesystem::exists(folder / "out/train.idx"));
  // What the encoder throws on its thread arrives here.
  CHECK_THROWS_WITH(
      prepare(options_for(folder, {good}),
              [](std::string_view) -> std::vector<int32_t> { throw Error("encoder"); }),
      "encoder");
}

TEST_CASE("the tokenizer goes along with the tokens", "[core][core-data]") {
  ScratchFolder folder;
  PrepareOptions options = options_for(folder, {folder.write("a.txt", "text")});
  options.tokenizer = folder.write("somewhere/tokenizer.json", "{}");
  prepare(options, bytes_as_tokens);
  const IndexedDataset set(folder / "out/train");
  CHECK(set.info().tokenizer == folder / "out/tokenizer.json");
  CHECK(read_bytes(set.info().tokenizer) == "{}");
  CHECK(set.info().tokenizer_xxh3 == file_xxh3(options.tokenizer));
  options.tokenizer = set.info().tokenizer;  // Again, with the copy.
  prepare(options, bytes_as_tokens);
  CHECK(read_bytes(options.tokenizer) == "{}");
}

TEST_CASE("a sample for the tokenizer holds training text only, up to its size",
          "[core][core-data]") {
  ScratchFolder folder;
  PrepareOptions options = options_for(folder,
                                       {folder.write("a.jsonl", some_lines(300) + "{\n"),
                                        folder.write("b.jsonl", some_lines(300, 300))});
  options.validation_fraction = 0.2;
  const auto sample = [&](int64_t max_bytes) {
    DocumentStream stream(options, max_bytes);
    Lines texts;
    for (std::string text; stream.next(text);) texts.push_back(text);
    return texts;
  };
  prepare(options, bytes_as_tokens);
  const Lines all = sample(1 << 20);
  CHECK(all == documents_of(folder / "out/train"));
  const Lines some = sample(1000);
  CHECK(some.size() > 40);
  CHECK(some.size() < 60);
  CHECK(std::equal(some.begin(), some.end(), all.begin()));
}
