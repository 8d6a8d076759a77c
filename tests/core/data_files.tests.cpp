// Reading: inputs, compressed streams, records, broken ones among them.
#include <zlib.h>
#include <zstd.h>

#include <algorithm>

#include "core/base/error.h"
#include "core/data/input_file.h"
#include "core/data/text_source.h"
#include "tests/catch.h"
#include "tests/core/data_scratch.h"

using namespace cohort;
using namespace cohort::core;
using cohort::tests::ScratchFolder;

namespace {

std::string gzipped(const std::string& text) {
  std::string out(text.size() + 1000, '\0');
  z_stream stream{};
  REQUIRE(deflateInit2(&stream, 6, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY) == Z_OK);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  REQUIRE(deflate(&stream, Z_FINISH) == Z_STREAM_END);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

std::string zstandard(const std::string& text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 3));
  return out;
}

/// Text that compresses, but not to nothing.
std::string long_text(int lines) {
  std::string text;
  for (int i = 0; i < lines; ++i) text += fmt::format("line {} of {}\n", i * 7919 % 100003, lines);
  return text;
}

std::string read_all(InputFile& file, size_t piece) {
  std::string all;
  std::vector<char> buffer(piece);
  while (const size_t count = file.read(buffer.data(), piece)) all.append(buffer.data(), count);
  return all;
}

std::vector<Record> records(const std::string& path, const TextOptions& options = {}) {
  RecordReader reader(path, options);
  std::vector<Record> all;
  for (Record record; reader.next(record); all.push_back(record)) parse_record(record, options);
  Record more;
  CHECK_FALSE(reader.next(more));
  return all;
}

/// "line:text", or "line!why" of the broken.
std::vector<std::string> told(const std::vector<Record>& all) {
  std::vector<std::string> lines;
  for (const auto& record : all)
    lines.push_back(fmt::format(
        "{}{}", record.line, record.broken.empty() ? ":" + record.text : "!" + record.broken));
  return lines;
}

using Lines = std::vector<std::string>;

}  // namespace

TEST_CASE("plain, gzip and zstd files give the same bytes", "[core][core-data]") {
  ScratchFolder folder;
  const std::string text = long_text(60000);  // More than the buffers hold.
  const size_t piece = GENERATE(1000, 1 << 20);
  const std::string half = text.substr(0, 400000), rest = text.substr(400000);
  for (const std::string& content : {text,
                                     gzipped(text),
                                     gzipped(half) + gzipped(rest),
                                     zstandard(text),
                                     zstandard(half) + zstandard(rest)}) {
    InputFile file(folder.write("file", content));
    CHECK((read_all(file, piece) == text));
    CHECK(file.damage().empty());
    CHECK(file.file_bytes() == static_cast<int64_t>(content.size()));
    CHECK(file.file_xxh3() == file_xxh3(folder / "file"));
    CHECK(file.file_xxh3().size() == 16);
  }
  for (const std::string& content : {std::string(), gzipped(""), zstandard("")}) {
    InputFile file(folder.write("file", content));
    CHECK(read_all(file, piece).empty());
    CHECK(file.damage().empty());
  }
  CHECK_THROWS_AS(InputFile(folder / "nothing"), InputError);
  // The hash is that of the bytes, for ever.
  CHECK(file_xxh3(folder.write("file", "abc")) == "78af5f94892f3950");
}

TEST_CASE("a cut or damaged stream ends with its beginning and the reason", "[core][core-data]") {
  ScratchFolder folder;
  const std::string text = long_text(60000);
  const auto check = [&](std::string content, const char* why) {
    InputFile file(folder.write("file", content));
    const std::string got = read_all(file, 5000);
    CHECK(got.size() < text.size() + 1);
    CHECK((text.compare(0, got.size(), got) == 0));
    CHECK(file.damage() == why);
    CHECK(file.file_xxh3() == file_xxh3(folder / "file"));
  };
  const std::string gzip = gzipped(text), zstd = zstandard(text);
  for (const size_t cut : {size_t{5}, size_t{15}, gzip.size() / 2, gzip.size() - 1})
    check(gzip.substr(0, cut), "the gzip stream is cut");
  for (const size_t cut : {size_t{5}, size_t{15}, zstd.size() / 2, zstd.size() - 1})
    check(zstd.substr(0, cut), "the zstd stream is cut");
  check(gzip + "x?", "the gzip stream is damaged");
  check(zstd + "abcdefgh", "the zstd stream is damaged");
  std::string damaged = gzip;
  damaged[damaged.size() - 6] ^= 1;  // Its checksum.
  check(damaged, "the gzip stream is damaged");
}

TEST_CASE("gzip -9's figure is that of the file it would write", "[core][core-data]") {
  ScratchFolder folder;
  const std::string text = long_text(60000);
  std::string out(text.size() + 1000, '\0');
  z_stream stream{};
  deflateInit2(&stream, 9, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  deflate(&stream, Z_FINISH);
  const double expected = 8.0 * static_cast<double>(stream.total_out) / text.size();
  deflateEnd(&stream);
  CHECK(gzip_bits_per_byte(folder.write("file", text)) == expected);
  CHECK(gzip_bits_per_byte(folder.write("file", "")) == 0);
  CHECK_THROWS_AS(gzip_bits_per_byte(folder / "nothing"), InputError);
}

TEST_CASE("text files split as asked", "[core][core-data]") {
  ScratchFolder folder;
  const std::string path =
      folder.write("a.txt", "\xEF\xBB\xBFone\r\ntwo\n \t\n\n\nthree  \n\nfour\n\n\n");
  CHECK(told(records(path)) == Lines{"1:one\ntwo\n \t\n\n\nthree  \n\nfour"});
  CHECK(told(records(path, {"text", Split::blank_lines})) ==
        Lines{"1:one\ntwo", "6:three  ", "8:four"});
  CHECK(told(records(path, {"text", Split::lines})) ==
        Lines{"1:one", "2:two", "6:three  ", "8:four"});
  const std::string open_end = folder.write("b.txt", "one\n\ntwo");
  CHECK(told(records(open_end, {"text", Split::blank_lines})) == Lines{"1:one", "3:two"});
  CHECK(told(records(open_end, {"text", Split::lines})) == Lines{"1:one", "3:two"});
}

TEST_CASE("JSON lines are read by their field, compressed or not", "[core][core-data]") {
  ScratchFolder folder;
  const std::string text =
      "{\"text\": \"a\\nb \\u00e9\", \"n\": 1}\n\n  {\"body\": \"x\", \"text\": \"\"}  "
      "\r\n{\"text\":\"end\"}";
  const Lines expected{"1:a\nb \u00e9", "3:", "4:end"};
  CHECK(told(records(folder.write("a.jsonl", text))) == expected);
  CHECK(told(records(folder.write("a.json", text))) == expected);
  CHECK(told(records(folder.write("a.ndjson", text))) == expected);
  CHECK(told(records(folder.write("a.jsonl.gz", gzipped(text)))) == expected);
  CHECK(told(records(folder.write("a.jsonl.zst", zstandard(text)))) == expected);
  CHECK(told(records(folder / "a.jsonl", {"body", Split::file}))[1] == "3:x");
  CHECK(told(records(folder.write("a.txt.gz", gzipped("plain")))) == Lines{"1:plain"});
}

TEST_CASE("every kind of broken record is told with its line", "[core][core-data]") {
  ScratchFolder folder;
  const auto json = [&](const std::string& text) {
    return told(records(folder.write("a.jsonl", text)));
  };
  CHECK(json("{\"text\": \"a\"}\n{\"text\": \"b\"\n{\"text\": \"c\"}\n") ==
        Lines{"1:a", "2!not JSON: wrong at byte 13 of the line", "3:c"});
  CHECK(json("{\"txt\": \"a\"}") == Lines{"1!no field 'text'"});
  CHECK(json("{\"text\": null}") == Lines{"1!field 'text' is not a string"});
  CHECK(json("[\"text\"]\n17\n\"text\"") ==
        Lines{"1!not a JSON object", "2!not a JSON object", "3!not a JSON object"});
  CHECK(json("{\"text\": \"a\xFFz\"}") == Lines{"1!invalid UTF-8 at byte 12 of the line"});
  CHECK_THAT(json("{\"text\": \"\\ud800\"}")[0], Catch::Contains("1!not JSON"));
  CHECK_THAT(json("{\"text\": \"a\", \"n\": 1e999}")[0], Catch::Contains("1!not JSON"));
  CHECK(json("") == Lines{"1!an empty file"});
  CHECK(json("\n \n") == Lines{"1!no document in it, blank lines only"});

  const std::string text = folder.write("a.txt", "good\nb\xC3(d\n\nfine\n");
  CHECK(told(records(text)) == Lines{"2!invalid UTF-8 at byte 2 of the line"});
  CHECK(told(records(text, {"text", Split::lines})) ==
        Lines{"1:good", "2!invalid UTF-8 at byte 2 of the line", "4:fine"});
  CHECK(told(records(text, {"text", Split::blank_lines})) ==
        Lines{"2!invalid UTF-8 at byte 2 of the line", "4:fine"});
  for (const Split split : {Split::file, Split::blank_lines, Split::lines})
    CHECK(told(records(folder.write("b.txt", ""), {"text", split})) == Lines{"1!an empty file"});
}

TEST_CASE("of a cut stream the whole records are kept and the rest is told", "[core][core-data]") {
  ScratchFolder folder;
  std::string lines;
  for (int i = 0; i < 20000; ++i) lines += fmt::format("{{\"text\": \"{}\"}}\n", i * 7919 % 100003);
  const std::string text = long_text(20000);
  const auto check = [&](const std::vector<Record>& all, const char* why) {
    REQUIRE(all.size() > 1000);
    CHECK(all.size() < 20000);
    CHECK(all.back().broken == why);
    CHECK(all.back().line == static_cast<int64_t>(all.size()));
    CHECK(std::count_if(all.begin(), all.end(), [](const Record& record) {
            return !record.broken.empty();
          }) == 1);
  };
  const std::string gzip = gzipped(lines), zstd = zstandard(lines);
  check(records(folder.write("a.jsonl.gz", gzip.substr(0, gzip.size() / 2))),
        "the gzip stream is cut");
  check(records(folder.write("a.jsonl.zst", zstd.substr(0, zstd.size() - zstd.size() / 3))),
        "the zstd stream is cut");
  const std::string cut = gzipped(text).substr(0, gzipped(text).size() / 2);
  check(records(folder.write("a.txt.gz", cut), {"text", Split::lines}), "the gzip stream is cut");
  const auto whole = records(folder / "a.txt.gz");
  REQUIRE(whole.size() == 1);
  CHECK(whole[0].broken == "the gzip stream is cut");
}

TEST_CASE("a document that would not fit in memory is broken, those after it are not",
          "[core][core-data]") {
  ScratchFolder folder;
  const std::string huge(kMaxDocumentBytes + 5, 'x');
  const std::string path = folder.write("a.txt", "one\n\n" + huge + "\n\ntwo\n");
  const Lines lines = told(records(path, {"text", Split::lines}));
  REQUIRE(lines.size() == 3);
  CHECK_THAT(lines[1], Catch::Contains("3!longer than 64 MiB"));
  CHECK(lines[2] == "5:two");
  const Lines paragraphs = told(records(path, {"text", Split::blank_lines}));
  REQUIRE(paragraphs.size() == 3);
  CHECK_THAT(paragraphs[1], Catch::Contains("3!longer than 64 MiB"));
  CHECK(paragraphs[2] == "5:two");
  CHECK_THAT(told(records(path))[0], Catch::Contains("1!longer than 64 MiB"));
}

TEST_CASE("UTF-8 is what Unicode says it is", "[core][core-data]") {
  const auto bad = [](const std::string& text) {
    return find_invalid_utf8("12345678" + text + "x");
  };
  const auto npos = std::string_view::npos;
  for (const char* good :
       {"", "abc", "\u00e9", "\u20ac", "\U0001F600", "\uFFFF", "\U0010FFFF", "\u0800"})
    CHECK(bad(good) == npos);
  for (const char* wrong : {"\x80",
                            "\xC0\x80",
                            "\xC1\xBF",
                            "\xE0\x9F\xBF",
                            "\xED\xA0\x80",
                            "\xF0\x8F\xBF\xBF",
                            "\xF4\x90\x80\x80",
                            "\xF5\x80\x80\x80",
                            "\xFF",
                            "\xC3",
                            "\xE2\x82",
                            "\xF0\x9F\x98"})
    CHECK(bad(wrong) == 8);
  CHECK(find_invalid_utf8("\xE2\x82") == 0);
  CHECK(find_invalid_utf8(std::string("a\0b", 3)) == npos);
  CHECK(count_characters(" \n\u00e9\u20ac x\t ") == 4);
  CHECK(count_characters(" \n") == 0);
  CHECK(count_characters("") == 0);
}

TEST_CASE("files, folders and patterns name the inputs in a settled order", "[core][core-data]") {
  ScratchFolder folder;
  for (const char* name : {"in/b.txt",
                           "in/a.jsonl",
                           "in/sub/c.txt",
                           "in/.hidden/d.txt",
                           "in/.e.txt",
                           "in/train.bin",
                           "in/data_card.json",
                           "single"})
    folder.write(name, "x");
  std::filesystem::create_directory(folder / "empty");
  const auto names = [&](std::vector<std::string> inputs, const std::string& out = "") {
    for (auto& input : inputs) input = folder / input;
    std::vector<std::string> found = expand_inputs(inputs, out.empty() ? "" : folder / out);
    for (auto& path : found) path = path.substr(folder.path.size() + 1);
    return found;
  };
  CHECK(names({"single", "in"}, "in") == Lines{"single", "in/a.jsonl", "in/b.txt", "in/sub/c.txt"});
  CHECK(names({"in"}).size() == 5);
  CHECK(names({"in/*.txt", "s?ngle"}) == Lines{"in/b.txt", "single"});
  CHECK(names({"in/s*"}) == Lines{"in/sub/c.txt"});
  CHECK_THROWS_WITH(names({"nothing"}), Catch::Contains("nothing: no such file or folder"));
  CHECK_THROWS_WITH(names({"no*thing"}), Catch::Contains("no*thing: the pattern matches nothing"));
  CHECK_THROWS_WITH(names({"empty"}), Catch::Contains("empty: a folder without files"));
}
