#include "core/io/safetensors.h"

#include <sys/resource.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "core/base/error.h"
#include "core/io/xxh3.h"
#include "tests/catch.h"
#include "tests/fixtures.h"
#include "tests/scratch_folder.h"

namespace fs = std::filesystem;
using namespace cohort;
using namespace cohort::core;
using cohort::tests::read_bytes;
using cohort::tests::ScratchFolder;
using cohort::tests::write_bytes;

namespace {

/// A file from a header's JSON and its data.
std::string file_of(const std::string& json, const std::string& data = "") {
  std::string length(8, '\0');
  for (int i = 0; i < 8; ++i) length[i] = static_cast<char>(json.size() >> (8 * i));
  return length + json + data;
}

/// What reading says about this content; empty when it is accepted.
std::string complaint(const std::string& path, const std::string& content) {
  write_bytes(path, content);
  try {
    read_safetensors(path);
    return "";
  } catch (const InputError& error) {
    return error.what();
  }
}

const at::ScalarType kAllDtypes[] = {at::kDouble,
                                     at::kFloat,
                                     at::kHalf,
                                     at::kBFloat16,
                                     at::kLong,
                                     at::kInt,
                                     at::kShort,
                                     at::kChar,
                                     at::kByte,
                                     at::kBool,
                                     at::kFloat8_e4m3fn,
                                     at::kFloat8_e5m2,
                                     at::kUInt64,
                                     at::kUInt32,
                                     at::kUInt16};

std::vector<NamedTensor> one_of_each_dtype() {
  std::vector<NamedTensor> tensors;
  for (const auto dtype : kAllDtypes)
    tensors.push_back({"t." + safetensors_dtype_name(dtype),
                       at::arange(-2, 4, at::kFloat).view({2, 3}).to(at::kLong).to(dtype)});
  tensors.push_back({"scalar", at::scalar_tensor(3.5, at::kDouble)});
  tensors.push_back({"empty", at::empty({0, 7}, at::kFloat)});
  return tensors;
}

bool same_bytes(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == b.scalar_type() && a.sizes() == b.sizes() &&
         (a.nbytes() == 0 || std::memcmp(a.data_ptr(), b.data_ptr(), a.nbytes()) == 0);
}

}  // namespace

TEST_CASE("every dtype comes back from a safetensors file as it went in", "[core-safetensors]") {
  const ScratchFolder folder;
  const auto tensors = one_of_each_dtype();
  const auto written = write_safetensors(folder / "a.safetensors", tensors, {{"format", "pt"}});
  const std::string bytes = read_bytes(folder / "a.safetensors");
  CHECK(written.file_bytes == static_cast<int64_t>(bytes.size()));
  CHECK(written.header_bytes % 8 == 0);
  CHECK(written.header_xxh3 == xxh3_hex(bytes.data(), written.header_bytes));

  const SafetensorsFile file(folder / "a.safetensors");
  CHECK(file.metadata() == std::map<std::string, std::string>{{"format", "pt"}});
  CHECK(file.entries().size() == tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    const auto& [name, value] = tensors[i];
    CAPTURE(name);
    REQUIRE(file.has(name));
    CHECK(same_bytes(file.tensor(name), value));
    CHECK(written.xxh3[i] == xxh3_hex(bytes.data() + written.at[i], value.nbytes()));
    CHECK(file.bytes(name).second == value.nbytes());
  }
  CHECK(at::equal(file.elements("t.F32", 1, 4), tensors[1].value.flatten().slice(0, 1, 4)));
  CHECK_FALSE(file.has("other"));
  CHECK_THROWS_AS(file.tensor("other"), InputError);
  CHECK_THROWS_AS(file.elements("t.F32", 3, 7), Error);
}

TEST_CASE("a broken safetensors file is refused with a reason", "[core-safetensors]") {
  const ScratchFolder folder;
  const std::string path = folder / "a.safetensors";
  const std::string f4(4, '\0'), f8(8, '\0');
  const auto refuses = [&](const std::string& content, const std::string& reason) {
    const std::string said = complaint(path, content);
    CHECK_THAT(said, Catch::Contains(reason));
    CHECK_THAT(said, Catch::Contains(path));
    CHECK(said.find('\n') == std::string::npos);
  };
  const auto entry = [](const std::string& dtype, const std::string& shape, const std::string& at) {
    return R"({"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + at + "}";
  };
  const std::string good = entry("F32", "[1]", "[0,4]");

  REQUIRE(complaint(path, file_of("{\"a\":" + good + "}   ", f4)).empty());
  REQUIRE(complaint(path, file_of("{}")).empty());
  REQUIRE(complaint(path, file_of("{\"__metadata__\":null,\"a\":" + good + "}", f4)).empty());
  // A field that a later version may add is passed over, as the reference does.
  REQUIRE(complaint(path,
                    file_of(R"({"a":{"dtype":"F32","note":[{"a":[1]},2],"shape":[1],)"
                            R"("data_offsets":[0,4]}})",
                            f4))
              .empty());

  refuses("", "cut short");
  refuses("1234567", "cut short");
  refuses(std::string(8, '\xff'), "more than the 100000000");
  refuses(file_of("{}").substr(0, 9), "cut short");
  refuses(file_of(""), "does not begin with '{'");
  refuses(file_of(" {}"), "does not begin with '{'");
  refuses(file_of("{"), "is not JSON");
  refuses(file_of("{} {}"), "is not JSON");
  refuses(file_of(std::string("{}\0x", 4)), "NUL");
  refuses(file_of("{\"\xff\":" + good + "}", f4), "is not JSON");
  refuses(file_of("{\"a\":" + good + ",\"a\":" + good + "}", f4), "key \"a\" stands twice");
  refuses(file_of(R"({"__metadata__":{"k":"1","k":"2"}})"), "\"k\" stands twice");
  refuses(file_of(R"({"__metadata__":{},"__metadata__":{}})"), "stands twice");
  refuses(file_of(R"({"__metadata__":{"k":1}})"), "must be text");
  refuses(file_of(R"({"__metadata__":{"k":{}}})"), "must be text");
  refuses(file_of(R"({"__metadata__":[]})"), "must be an object");
  refuses(file_of(R"({"a":{"dtype":"F32","dtype":"F32"}})"), "stands twice");
  refuses(file_of(R"({"a":3})"), "must be an object");
  refuses(file_of(R"({"a":null})"), "must be an object");
  refuses(file_of(R"({"a":{}})"), "has no dtype");
  refuses(file_of(R"({"a":{"dtype":"F32","shape":[1]}})"), "has no data_offsets");
  refuses(file_of(R"({"a":{"dtype":3}})"), "must be text");
  refuses(file_of(R"({"a":{"shape":4}})"), "must be a list");
  refuses(file_of("{\"a\":" + entry("F32", "[[1]]", "[0,4]") + "}", f4), "whole numbers");
  refuses(file_of("{\"a\":" + entry("F32", "[-1]", "[0,4]") + "}", f4), "whole numbers");
  refuses(file_of("{\"a\":" + entry("F32", "[1.0]", "[0,4]") + "}", f4), "whole numbers");
  refuses(file_of("{\"a\":" + entry("C64", "[1]", "[0,8]") + "}", f8), "dtype \"C64\", not one of");
  refuses(file_of("{\"a\":" + entry("F32", "[1]", "[0,8]") + "}", f8), "has 8 bytes of data");
  refuses(file_of("{\"a\":" + entry("F32", "[1]", "[4,0]") + "}", f4), "begin <= end");
  refuses(file_of("{\"a\":" + entry("F32", "[1]", "[0,4,8]") + "}", f4), "two numbers");
  refuses(file_of("{\"a\":" + entry("F32", "[4294967296,4294967296]", "[0,0]") + "}"), "too large");
  refuses(file_of("{\"a\":" + entry("F32", "[0,4611686018427387904,8]", "[0,0]") + "}"),
          "too large");
  refuses(file_of("{\"a\":" + entry("F32", "[18446744073709551616]", "[0,4]") + "}", f4),
          "whole numbers");
  refuses(file_of("{\"a\":" + entry("F32", "[1]", "[4,8]") + "}", f8), "begins at 4 instead of 0");
  refuses(file_of("{\"a\":" + good + ",\"b\":" + good + "}", f4), "begins at 0 instead of 4");
  refuses(file_of("{\"a\":" + good + "}", f8), "too long");
  refuses(file_of("{\"a\":" + good + "}", "123"), "cut short");
  refuses(file_of("{\"a\":" + entry("BOOL", "[1]", "[0,1]") + "}", "\2"), "BOOL");
  refuses(file_of(std::string(100000, '[')), "does not begin");
  refuses(file_of("{\"a\":" + std::string(100000, '[')), "must be an object");

  CHECK_THROWS_WITH(SafetensorsFile(folder / "none.safetensors"),
                    Catch::Contains("none.safetensors") && Catch::Contains("No such file"));
  CHECK_THROWS_WITH(SafetensorsFile(folder.path), Catch::Contains("not a regular file"));
}

TEST_CASE("a sharded folder is read whole, and every disagreement is named", "[core-safetensors]") {
  const ScratchFolder folder;
  const auto ones = at::ones({2, 2}), twos = at::full({3}, 2.0);
  const auto index = [&](const std::string& map) {
    write_bytes(folder / "model.safetensors.index.json", "{\"weight_map\":" + map + "}");
  };
  write_safetensors(folder / "model-00001-of-00002.safetensors", {{"a", ones}});
  write_safetensors(folder / "model-00002-of-00002.safetensors", {{"b", twos}});

  const auto without_index = read_safetensors(folder.path);
  REQUIRE(without_index.size() == 2);
  CHECK(at::equal(without_index.at("b"), twos));
  index(R"({"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"})");
  CHECK(at::equal(read_safetensors(folder.path).at("a"), ones));

  index(R"({"a":"model-00001-of-00002.safetensors","b":"model-00001-of-00002.safetensors",
            "c":"model-00002-of-00002.safetensors","d":"model-00003-of-00003.safetensors"})");
  CHECK_THROWS_WITH(
      read_safetensors(folder.path),
      Catch::Contains("cannot open " + (folder / "model-00003-of-00003.safetensors")) &&
          Catch::Contains("\"b\" is not in model-00001-of-00002.safetensors but in") &&
          Catch::Contains("\"c\" is not in model-00002-of-00002.safetensors, nor in any other"));

  write_safetensors(folder / "model-00002-of-00002.safetensors", {{"b", twos}, {"a", ones}});
  index(R"({"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"})");
  CHECK_THROWS_WITH(read_safetensors(folder.path), Catch::Contains("\"a\" also stands in"));

  index(R"({"a":"../model-00001-of-00002.safetensors"})");
  CHECK_THROWS_WITH(read_safetensors(folder.path), Catch::Contains("within the folder"));
  index("[]");
  CHECK_THROWS_WITH(read_safetensors(folder.path), Catch::Contains("weight_map"));
  write_bytes(folder / "model.safetensors.index.json", "{\"weight_map\":");
  CHECK_THROWS_WITH(read_safetensors(folder.path), Catch::Contains("not readable as JSON"));

  // transformers looks for the single file first.
  write_safetensors(folder / "model.safetensors", {{"whole", ones}});
  CHECK(read_safetensors(folder.path).count("whole") == 1);

  const ScratchFolder empty;
  CHECK_THROWS_WITH(read_safetensors(empty.path), Catch::Contains("holds no model*.safetensors"));
  CHECK_THROWS_AS(read_safetensors(empty / "none"), InputError);
}

TEST_CASE("what cannot be written says why and leaves no file", "[core-safetensors]") {
  const ScratchFolder folder;
  const std::string path = folder / "a.safetensors";
  const auto refuses = [&](const std::vector<NamedTensor>& tensors, const std::string& reason) {
    CHECK_THROWS_WITH(write_safetensors(path, tensors), Catch::Contains(reason));
    CHECK_FALSE(fs::exists(path));
  };
  const auto a = at::ones({2, 3});
  refuses({{"a", a}, {"a", a}}, "\"a\" stands twice");
  refuses({{"__metadata__", a}}, "stands twice");
  refuses({{"a", a.t()}}, "not contiguous");
  refuses({{"\xff", a}}, "not UTF-8");
  refuses({{"a", at::ones({1}, at::kComplexFloat)}}, "safetensors files hold");
  CHECK_THROWS_WITH(write_safetensors(folder / "none/a.safetensors", {{"a", a}}),
                    Catch::Contains("none/a.safetensors: No such file or directory"));

  // A limit on file size ends a write in the middle, as a full disk does.
  struct rlimit before {};
  REQUIRE(getrlimit(RLIMIT_FSIZE, &before) == 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  struct rlimit low = before;
  low.rlim_cur = 1 << 20;
  REQUIRE(setrlimit(RLIMIT_FSIZE, &low) == 0);
  std::string said;
  try {
    write_safetensors(path, {{"a", at::zeros({1 << 19})}});
  } catch (const Error& error) {
    said = error.what();
  }
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  CHECK(said == "cannot write " + path + ": File too large");
  CHECK_FALSE(fs::exists(path));
}

TEST_CASE("a reference checkpoint survives being read and written again",
          "[core-safetensors][parity]") {
  const ScratchFolder folder;
  for (const auto& model : tests::cases("deepseek_v3")) {
    CAPTURE(model);
    const auto tensors = read_safetensors(model.string());
    REQUIRE_FALSE(tensors.empty());
    std::vector<NamedTensor> list;
    for (const auto& [name, value] : tensors) list.push_back({name, value});
    write_safetensors(folder / "model.safetensors", list);
    const auto again = read_safetensors(folder.path);
    REQUIRE(again.size() == tensors.size());
    for (const auto& [name, value] : tensors) CHECK(same_bytes(again.at(name), value));
  }
}
