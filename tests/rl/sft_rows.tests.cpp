// Packing: what lies in which row, and what a forward pass reads of it.
#include "rl/sft_rows.h"

#include <set>

#include "core/base/rng.h"
#include "tests/catch.h"
#include "tests/rl/sft_examples.h"

using namespace cohort;

namespace {

struct Fixture {
  tests::ScratchFolder folder;
  core::Tokenizer tokenizer = tests::chat_tokenizer();
  std::vector<rl::SftFile> files;

  explicit Fixture(std::vector<int64_t> counts) {
    for (size_t i = 0; i < counts.size(); ++i) add(tests::made_up_examples(counts[i], i + 1));
  }
  void add(const std::string& lines) {
    const auto path = folder.write(std::to_string(files.size()) + ".jsonl", lines);
    files.emplace_back(path, tests::format_of(tokenizer), 64);
  }
  rl::SftRows rows(uint64_t seed = 1, std::vector<double> weights = {1}) {
    return {files, weights, 64, seed};
  }
};

std::vector<std::pair<int32_t, int64_t>> all_of(const std::vector<rl::PackedRow>& rows) {
  std::vector<std::pair<int32_t, int64_t>> out;
  for (const auto& row : rows)
    for (const auto& example : row.examples) out.emplace_back(example.file, example.index);
  return out;
}

std::vector<int64_t> values(const at::Tensor& tensor) {
  const int64_t* value = tensor.const_data_ptr<int64_t>();
  return {value, value + tensor.numel()};
}

}  // namespace

TEST_CASE("rows are well filled and hold every example of an epoch once", "[rl-sft_rows]") {
  Fixture f({500});
  auto rows = f.rows();
  const auto packed = rows.rows(0, rows.num_rows(1));
  auto examples = all_of(packed);
  int64_t tokens = 0;
  for (const auto& row : packed) {
    int64_t sum = 0;
    for (const auto& one : row.examples) sum += f.files[0].length(one.index);
    CHECK(sum == row.tokens);
    CHECK(sum <= 64);
    tokens += sum;
  }
  CHECK(tokens == f.files[0].num_tokens());
  CHECK(static_cast<double>(tokens) / (64.0 * static_cast<double>(packed.size())) > 0.95);
  CHECK(examples.size() == 500);
  CHECK(std::set(examples.begin(), examples.end()).size() == 500);
  std::vector<std::pair<int32_t, int64_t>> in_order;
  for (int64_t i = 0; i < 500; ++i) in_order.emplace_back(0, i);
  CHECK((examples != in_order));
}

TEST_CASE("first fit fills the oldest row with room", "[rl-sft_rows]") {
  Fixture f({});
  const auto line = [](size_t letters) {  // begin token, prompt, end token: letters + 2 in all
    return R"({"prompt": "", "completion": ")" + std::string(letters, 'x') + "\"}\n";
  };
  f.add(line(38) + line(48) + line(22) + line(12) + line(8) + line(62));  // 40 50 24 14 10 64
  const auto packed = rl::pack_rows(f.files, 64);
  std::vector<std::vector<int64_t>> indices;
  for (const auto& row : packed) {
    indices.emplace_back();
    for (const auto& one : row.examples) indices.back().push_back(one.index);
  }
  CHECK((indices == std::vector<std::vector<int64_t>>{{0, 2}, {1, 3}, {5}, {4}}));
}

TEST_CASE("the order is a function of seed and epoch", "[rl-sft_rows]") {
  Fixture f({300});
  auto one = f.rows(), same = f.rows(), other = f.rows(2);
  const int64_t epoch = one.num_rows(1);
  CHECK((one.rows(0, 20) == same.rows(0, 20)));
  CHECK((one.rows(0, 20) != other.rows(0, 20)));
  CHECK((one.rows(0, 20) != one.rows(epoch, 20)));
  // Row by row from the middle on, across epochs and back: the same rows.
  const auto whole = one.rows(0, 3 * epoch);
  auto later = f.rows();
  for (const int64_t first : {epoch - 3, 2 * epoch + 1, int64_t{5}}) {
    const auto some = later.rows(first, 7);
    CHECK((some == std::vector(whole.begin() + first, whole.begin() + first + 7)));
  }
}

TEST_CASE("epochs are counted in rows, none of which is of two", "[rl-sft_rows]") {
  Fixture f({100});
  auto rows = f.rows();
  CHECK(rows.epoch_size() == 100);
  for (int64_t epoch = 0; epoch < 3; ++epoch) {
    const int64_t begin = rows.num_rows(static_cast<double>(epoch));
    const int64_t end = rows.num_rows(static_cast<double>(epoch) + 1);
    const auto examples = all_of(rows.rows(begin, end - begin));
    CHECK(examples.size() == 100);
    CHECK(std::set(examples.begin(), examples.end()).size() == 100);
    CHECK(rows.num_rows(static_cast<double>(epoch) + 0.5) == begin + (end - begin + 1) / 2);
  }
  CHECK(rows.num_rows(0.001) == 1);
}

TEST_CASE("files give their shares of examples", "[rl-sft_rows]") {
  Fixture f({300, 60, 40});
  auto rows = f.rows(1, {1, 2, 1});
  CHECK(rows.epoch_size() == 400);
  std::vector<int64_t> given(3);
  std::vector<std::set<int64_t>> seen(3);
  for (const auto& [file, index] : all_of(rows.rows(0, rows.num_rows(3)))) {
    ++given[file];
    seen[file].insert(index);
  }
  CHECK(std::abs(given[0] - 300) < 4);
  CHECK(std::abs(given[1] - 600) < 4);
  CHECK(std::abs(given[2] - 300) < 4);
  CHECK(seen[0].size() >= 296);  // each once before any comes again
  CHECK(seen[1].size() == 60);
}

TEST_CASE("a batch holds no padding, and each example starts at position 0", "[rl-sft_rows]") {
  Fixture f({});
  f.add(
      "{\"prompt\": \"ab\", \"completion\": \"xy\"}\n{\"prompt\": \"\", \"completion\": \"z\"}\n");
  const auto id = [&](const char* letter) { return int64_t{f.tokenizer.encode(letter)[0]}; };
  const auto rows = rl::pack_rows(f.files, 64);
  REQUIRE(rows.size() == 1);
  const auto batch = rl::make_sft_batch(f.files, rows, 2);
  // 0 a b x y 1 | 0 z 1, of each all but the last token
  CHECK(values(batch.input_ids) ==
        std::vector<int64_t>{0, id("a"), id("b"), id("x"), id("y"), 0, id("z")});
  REQUIRE(batch.layout.runs.size() == 2);
  CHECK(batch.layout.runs[1].first == 5);
  CHECK(batch.layout.runs[1].count == 2);
  CHECK(batch.layout.runs[1].position == 0);
  CHECK_FALSE(batch.layout.one_run_a_row);
  CHECK(values(batch.targets[0]) == std::vector<int64_t>{-1, -1, id("x"), id("y"), 1, id("z"), 1});
  CHECK(values(batch.targets[1]) == std::vector<int64_t>{-1, id("x"), id("y"), 1, 1});
  CHECK(values(batch.targets[2]) == std::vector<int64_t>{id("x"), id("y"), 1});
  const auto counts = rl::count_rows(f.files, rows, 2);
  CHECK(counts.examples == 2);
  CHECK(counts.tokens == 9);
  CHECK(counts.targets == std::vector<int64_t>{5, 4, 3});
}
