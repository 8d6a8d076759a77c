#include "core/data/indexed_dataset.h"

#include <sys/resource.h>

#include <csignal>
#include <cstring>

#include "core/base/error.h"
#include "tests/catch.h"
#include "tests/core/data_scratch.h"

using namespace cohort;
using namespace cohort::core;
using cohort::tests::read_bytes;
using cohort::tests::ScratchFolder;
using cohort::tests::write_set;

namespace {

template <class T>
std::string packed(std::initializer_list<T> values) {
  std::string bytes;
  for (const T value : values) bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
  return bytes;
}

/// An index as Megatron-core lays it out, byte by byte.
std::string index_bytes(uint8_t type,
                        std::initializer_list<int32_t> lengths,
                        std::initializer_list<int64_t> pointers,
                        std::initializer_list<int64_t> marks) {
  return std::string("MMIDIDX\0\0", 9) + packed<uint64_t>({1}) + packed<uint8_t>({type}) +
         packed<uint64_t>({lengths.size()}) + packed<uint64_t>({marks.size()}) + packed(lengths) +
         packed(pointers) + packed(marks);
}

std::vector<int64_t> document(const IndexedDataset& set, int64_t d) {
  std::vector<int64_t> tokens(set.document_length(d));
  set.read(d, 0, static_cast<int64_t>(tokens.size()), tokens.data());
  return tokens;
}

/// The message with which opening fails.
std::string refusal(const std::string& prefix) {
  try {
    IndexedDataset set(prefix);
  } catch (const InputError& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("what is written to a token set is read back", "[core][core-indexed_dataset]") {
  const int64_t vocab_size = GENERATE(300, 65536, 65537, 200000);
  ScratchFolder folder;
  const auto last = static_cast<int32_t>(vocab_size - 1);
  const std::string prefix = write_set(folder / "set",
                                       {{1, 2, 3}, {}, {last, 0}, {7}},
                                       vocab_size,
                                       {42, vocab_size, "tokenizer.json", "abc", 0, 1});
  for (const char* ending : {"", ".bin", ".idx"}) {
    const IndexedDataset set(prefix + ending);
    CHECK(set.num_documents() == 4);
    CHECK(set.num_tokens() == 6);
    CHECK(set.token_bytes() == (vocab_size <= 65536 ? 2 : 4));
    CHECK(document(set, 0) == std::vector<int64_t>{1, 2, 3});
    CHECK(document(set, 1).empty());
    CHECK(document(set, 2) == std::vector<int64_t>{last, 0});
    int64_t one = 0;
    set.read(0, 2, 1, &one);
    CHECK(one == 3);
    CHECK(set.document_at(2) == 0);
    CHECK(set.document_at(3) == 2);
    CHECK(set.document_at(5) == 3);
    CHECK(set.info().bytes == 42);
    CHECK(set.info().vocab_size == vocab_size);
    CHECK(set.info().tokenizer == folder / "tokenizer.json");
    CHECK(set.info().end_token == 1);
    CHECK_THROWS_AS(set.read(0, 2, 2, &one), Error);
    CHECK_THROWS_AS(set.read(4, 0, 0, &one), Error);
  }
}

TEST_CASE("the bytes written are Megatron's format", "[core][core-indexed_dataset]") {
  ScratchFolder folder;
  write_set(folder / "set", {{1, 2, 3}, {500}}, 1000);
  CHECK(read_bytes(folder / "set.idx") == index_bytes(8, {3, 1}, {0, 6}, {0, 1, 2}));
  CHECK(read_bytes(folder / "set.bin") == packed<uint16_t>({1, 2, 3, 500}));
}

TEST_CASE("every integer type and documents of several sequences are read",
          "[core][core-indexed_dataset]") {
  ScratchFolder folder;
  const auto check = [&](uint8_t type, int64_t size, const std::string& tokens) {
    INFO("type " << int{type});
    folder.write("set.idx", index_bytes(type, {2, 1, 1}, {0, 2 * size, 3 * size}, {0, 2, 3}));
    folder.write("set.bin", tokens);
    const IndexedDataset set(folder / "set");
    REQUIRE(set.num_documents() == 2);
    CHECK(document(set, 0) == std::vector<int64_t>{5, 6, 100});
    CHECK(document(set, 1) == std::vector<int64_t>{8});
    CHECK(set.info().bytes == 0);
    CHECK_NOTHROW(set.check_tokens(101));
    CHECK_THROWS_WITH(set.check_tokens(100),
                      Catch::Contains("set.bin: token 2 of document 0 is 100"));
  };
  check(1, 1, packed<uint8_t>({5, 6, 100, 8}));
  check(2, 1, packed<int8_t>({5, 6, 100, 8}));
  check(3, 2, packed<int16_t>({5, 6, 100, 8}));
  check(4, 4, packed<int32_t>({5, 6, 100, 8}));
  check(5, 8, packed<int64_t>({5, 6, 100, 8}));
  check(8, 2, packed<uint16_t>({5, 6, 100, 8}));

  folder.write("set.bin", packed<int32_t>({5, -6, 100, 8}));
  folder.write("set.idx", index_bytes(4, {2, 1, 1}, {0, 8, 12}, {0, 2, 3}));
  CHECK_THROWS_WITH(IndexedDataset(folder / "set").check_tokens(1000),
                    Catch::Contains("token 1 of document 0 is -6"));
}

TEST_CASE("a broken token set is refused with its file and what is wrong",
          "[core][core-indexed_dataset]") {
  ScratchFolder folder;
  const std::string tokens = packed<uint16_t>({1, 2, 3, 4});
  const std::string good = index_bytes(8, {3, 1}, {0, 6}, {0, 1, 2});
  const auto opened = [&](const std::string& index, const std::string& bin) {
    folder.write("set.idx", index);
    folder.write("set.bin", bin);
    return refusal(folder / "set");
  };
  const auto patched = [&](size_t at, const std::string& bytes) {
    std::string index = good;
    return index.replace(at, bytes.size(), bytes);
  };
  const auto u64 = [](uint64_t value) { return packed<uint64_t>({value}); };
  using Catch::Contains;

  REQUIRE(opened(good, tokens).empty());
  CHECK_THAT(refusal(folder / "nothing"), Contains("nothing.idx: cannot be read"));
  CHECK_THAT(opened("", tokens), Contains("set.idx: not a Megatron token index"));
  CHECK_THAT(opened(good.substr(0, 20), tokens), Contains("set.idx: not a Megatron token index"));
  CHECK_THAT(opened(patched(0, "X"), tokens), Contains("set.idx: not a Megatron token index"));
  CHECK_THAT(opened(patched(9, u64(2)), tokens), Contains("set.idx: index version 2"));
  CHECK_THAT(opened(patched(17, "\x06"), tokens), Contains("set.idx: token type code 6"));
  CHECK_THAT(opened(patched(17, "\xFF"), tokens), Contains("set.idx: token type code 255"));
  for (size_t cut = 34; cut < good.size(); ++cut)
    REQUIRE_THAT(opened(good.substr(0, cut), tokens), Contains("set.idx: ") && Contains("cut"));
  CHECK_THAT(opened(good + "x", tokens), Contains("cut or damaged"));
  CHECK_THAT(opened(good + "xx", tokens), Contains("multimodal"));
  for (const uint64_t many : {uint64_t{3}, uint64_t{1} << 61, ~uint64_t{0}}) {
    CHECK_THAT(opened(patched(18, u64(many)), tokens), Contains("cut or damaged"));
    CHECK_THAT(opened(patched(26, u64(many + 1)), tokens), Contains("cut or damaged"));
  }
  CHECK_THAT(opened(patched(34, packed<int32_t>({-3})), tokens),
             Contains("sequence 0 has the length -3"));
  CHECK_THAT(opened(patched(34, packed<int32_t>({2})), tokens),
             Contains("sequence 1 begins at byte 6; the lengths before it put it at 4"));
  CHECK_THAT(opened(patched(38, packed<int32_t>({1000})), tokens),
             Contains("set.bin: 8 bytes, but its index tells of 1003 tokens"));
  CHECK_THAT(opened(patched(50, u64(1000)), tokens), Contains("sequence 1 begins at byte 1000"));
  CHECK_THAT(opened(patched(58, u64(1)), tokens), Contains("document marks must run from 0"));
  CHECK_THAT(opened(patched(66, u64(9)), tokens), Contains("document 0 ends at sequence 9"));
  CHECK_THAT(opened(patched(74, u64(1)), tokens), Contains("document marks must run from 0"));
  CHECK_THAT(opened(index_bytes(8, {}, {}, {}), ""), Contains("document marks"));
  CHECK_THAT(opened(good, tokens.substr(0, 7)), Contains("set.bin: 7 bytes"));
  CHECK_THAT(opened(good, ""), Contains("set.bin: 0 bytes"));
  CHECK_THAT(opened(good, tokens + "xx"), Contains("do not belong together"));
  std::filesystem::remove(folder / "set.bin");
  CHECK_THAT(refusal(folder / "set"), Contains("set.bin: cannot be read"));
  std::filesystem::create_directory(folder / "set.bin");
  CHECK_THAT(refusal(folder / "set"), Contains("set.bin: not a file"));
}

TEST_CASE("a broken sidecar is refused with its file and key", "[core][core-indexed_dataset]") {
  ScratchFolder folder;
  write_set(folder / "set", {{1}}, 10);
  for (const char* bad :
       {"", "{", "[]", "{\"bytes\": \"x\"}", "{\"tokenizer\": 1}", "{\"bytes\": -1}"}) {
    folder.write("set.json", bad);
    CHECK_THAT(refusal(folder / "set"), Catch::Contains("set.json: "));
  }
}

TEST_CASE("a set of no document is read", "[core][core-indexed_dataset]") {
  ScratchFolder folder;
  const IndexedDataset set(write_set(folder / "set", {}, 10));
  CHECK(set.num_documents() == 0);
  CHECK(set.num_tokens() == 0);
  CHECK_NOTHROW(set.check_tokens(10));
}

TEST_CASE("a token set that is not finished leaves nothing, and the older one as it was",
          "[core][core-indexed_dataset]") {
  ScratchFolder folder;
  write_set(folder / "set", {{1, 2}}, 10);
  {
    IndexedDatasetWriter writer(folder / "set", 10);
    writer.add_document(std::vector<int32_t>{3});
    CHECK_THROWS_AS(writer.add_document(std::vector<int32_t>{10}), Error);
    CHECK_THROWS_AS(writer.add_document(std::vector<int32_t>{-1}), Error);
  }
  CHECK(document(IndexedDataset(folder / "set"), 0) == std::vector<int64_t>{1, 2});
  const auto entries = std::filesystem::directory_iterator(folder.path);
  CHECK(std::distance(begin(entries), end(entries)) == 3);
  CHECK_THROWS_AS(IndexedDatasetWriter(folder / "no/such/set", 10), InputError);
}

TEST_CASE("a disk without room gives an error that names the file",
          "[core][core-indexed_dataset]") {
  ScratchFolder folder;
  // A limit on the size of files stands for a full disk: writes fail in the same way.
  struct rlimit before {};
  ::getrlimit(RLIMIT_FSIZE, &before);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  struct rlimit small = before;
  small.rlim_cur = 100000;
  ::setrlimit(RLIMIT_FSIZE, &small);
  std::string message;
  try {
    IndexedDatasetWriter writer(folder / "set", 10);
    for (int i = 0; i < 1000; ++i) writer.add_document(std::vector<int32_t>(1000, 1));
    writer.finish({});
  } catch (const Error& error) {
    message = error.what();
  }
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  CHECK_THAT(message, Catch::Contains("set.bin: writing failed"));
  CHECK(std::filesystem::is_empty(folder.path));
}
