#include "core/data/loader.h"

#include <cmath>
#include <map>
#include <set>
#include <thread>

#include "core/base/error.h"
#include "core/data/mixture.h"
#include "tests/catch.h"
#include "tests/core/data_scratch.h"

using namespace cohort;
using namespace cohort::core;
using cohort::tests::distinct_documents;
using cohort::tests::ScratchFolder;
using cohort::tests::write_set;

namespace {

const std::vector<int> kLengths{5, 1, 9, 2, 30, 4, 4, 0, 17, 3, 8, 6};

DataConfig one_source(const std::string& path, int64_t seq_len) {
  DataConfig config;
  config.train = {{path, 1.0}};
  config.seq_len = seq_len;
  return config;
}

int64_t element(const at::Tensor& tensor, int64_t row, int64_t column) {
  return tensor.data_ptr<int64_t>()[row * tensor.size(1) + column];
}

bool equal(const Batch& a, const Batch& b) {
  return at::equal(a.tokens, b.tokens) && at::equal(a.document_id, b.document_id);
}

Batch slice(const Batch& batch, int64_t first, int64_t count) {
  return {batch.tokens.narrow(0, first, count), batch.document_id.narrow(0, first, count)};
}

/// The token predicted at each target position of the rows, with the one before it.
std::vector<std::pair<int64_t, int64_t>> targets(const Batch& batch) {
  std::vector<std::pair<int64_t, int64_t>> found;
  for (int64_t row = 0; row < batch.num_rows(); ++row)
    for (int64_t t = 0; t < batch.seq_len(); ++t)
      if (element(batch.document_id, row, t) == element(batch.document_id, row, t + 1) &&
          element(batch.document_id, row, t) >= 0)
        found.emplace_back(element(batch.tokens, row, t), element(batch.tokens, row, t + 1));
  return found;
}

}  // namespace

TEST_CASE("a sample is the same rows whatever the batch around it", "[core][core-loader]") {
  ScratchFolder folder;
  DataConfig config;
  config.seq_len = 7;
  config.train = {{write_set(folder / "a", distinct_documents(kLengths), 1000), 0.7},
                  {write_set(folder / "b", distinct_documents({40, 3}, 500), 1000), 0.3}};
  const TrainSampler sampler(config, 1, 1000), again(config, 1, 1000), other(config, 2, 1000);
  const int64_t n = 60;
  const Batch all = sampler.rows(0, n);
  REQUIRE(all.num_rows() == n);
  REQUIRE(all.seq_len() == 7);
  CHECK(equal(all, again.rows(0, n)));
  CHECK_FALSE(equal(all, other.rows(0, n)));
  for (int64_t i = n - 1; i >= 0; --i)  // Backwards, from epochs that `again` has let go.
    REQUIRE(equal(again.rows(i, 1), slice(all, i, 1)));
  for (const int64_t size : {7, 16})
    for (int64_t i = 0; i + size <= n; i += size)
      REQUIRE(equal(sampler.rows(i, size), slice(all, i, size)));
  CHECK(sampler.rows(3, 0).num_rows() == 0);
  // Far into a run, without reading what lies before.
  CHECK(equal(sampler.rows(1'000'000'000'000, 2), again.rows(1'000'000'000'000, 2)));
}

TEST_CASE("rows may be asked for from several threads", "[core][core-loader]") {
  ScratchFolder folder;
  const DataConfig config =
      one_source(write_set(folder / "a", distinct_documents(kLengths), 1000), 7);
  const TrainSampler sampler(config, 1, 1000);
  const Batch expected = TrainSampler(config, 1, 1000).rows(0, 200);
  std::vector<int> wrong(4, 0);
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread)
    threads.emplace_back([&, thread] {
      for (int64_t i = thread; i < 200; i += 3)
        wrong[thread] += !equal(sampler.rows(i, 1), slice(expected, i, 1));
    });
  for (auto& thread : threads) thread.join();
  CHECK(wrong == std::vector<int>(4, 0));
}

TEST_CASE("each epoch covers every token as a target once, in an order of its own",
          "[core][core-loader]") {
  ScratchFolder folder;
  const auto documents = distinct_documents(kLengths);
  int64_t num_tokens = 0, num_empty = 0;
  for (const auto& document : documents) {
    num_tokens += static_cast<int64_t>(document.size());
    num_empty += document.empty();
  }
  const int64_t seq_len = GENERATE(7, 11, 88);
  const int64_t epochs = seq_len;  // So that epochs * num_tokens is a whole number of rows.
  const TrainSampler sampler(
      one_source(write_set(folder / "a", documents, 1000), seq_len), 3, 1000);

  std::map<int64_t, int64_t> times;
  std::vector<int64_t> stream;
  std::map<int64_t, int64_t> last_row_overlap;
  const Batch batch = sampler.rows(0, num_tokens + 1);
  for (int64_t row = 0; row < batch.num_rows(); ++row) {
    if (row > 0)  // The rows overlap by one token.
      REQUIRE(element(batch.tokens, row, 0) == element(batch.tokens, row - 1, seq_len));
    for (int64_t t = 0; t < seq_len; ++t) stream.push_back(element(batch.tokens, row, t));
    for (int64_t t = 0; t < seq_len; ++t) {
      const int64_t step =
          element(batch.document_id, row, t + 1) - element(batch.document_id, row, t);
      REQUIRE((step == 0 || step == 1));
      // A new document is where the tokens do not go on.
      const bool goes_on = element(batch.tokens, row, t + 1) == element(batch.tokens, row, t) + 1;
      if (step == 0) REQUIRE(goes_on);
    }
    REQUIRE(element(batch.document_id, row, 0) == 0);
  }
  std::vector<std::vector<int64_t>> orders;
  for (int64_t epoch = 0; epoch < epochs; ++epoch) {
    const std::vector<int64_t> order(stream.begin() + epoch * num_tokens,
                                     stream.begin() + (epoch + 1) * num_tokens);
    CHECK(std::set<int64_t>(order.begin(), order.end()).size() == static_cast<size_t>(num_tokens));
    orders.push_back(order);
  }
  CHECK(std::set<std::vector<int64_t>>(orders.begin(), orders.end()).size() > orders.size() / 2);
  CHECK(orders[0] != orders[1]);

  // As targets: every token but the first of each document, once an epoch.
  for (const auto& [before, target] : targets(slice(batch, 0, num_tokens))) {
    CHECK(target == before + 1);
    ++times[target];
  }
  CHECK(static_cast<int64_t>(times.size()) ==
        num_tokens - (static_cast<int64_t>(documents.size()) - num_empty));
  for (const auto& [token, count] : times) CHECK(count == epochs);
}

TEST_CASE("the shuffle puts every document everywhere", "[core][core-loader]") {
  ScratchFolder folder;
  std::vector<std::vector<int32_t>> documents;
  for (int32_t i = 0; i < 10; ++i) documents.push_back({i, i});
  const TrainSampler sampler(one_source(write_set(folder / "a", documents, 10), 20 - 1), 5, 10);
  // Rows of 19 + 1 tokens walk over the epochs; count who comes first in each.
  std::map<int64_t, int> first;
  const int64_t epochs = 2000;
  const Batch batch = sampler.rows(0, epochs * 20 / 19 + 1);
  for (int64_t epoch = 0; epoch < epochs; ++epoch) {
    const int64_t position = epoch * 20;
    ++first[element(batch.tokens, position / 19, position % 19)];
  }
  REQUIRE(first.size() == 10);
  for (const auto& [token, count] : first) CHECK(std::abs(count - 200) < 70);  // 5 sigma
}

TEST_CASE("weights are respected in every stretch of samples", "[core][core-loader]") {
  const std::vector<double> weights{5.0, 0.0, 2.5, 0.1, 2.4};
  const Mixture mixture(weights, 11);
  std::vector<int64_t> next(weights.size(), 0);
  std::vector<int64_t> in_stretch(weights.size(), 0);
  const int64_t stretch = 1000;
  for (int64_t i = 0; i < 50 * stretch; ++i) {
    const auto [source, index] = mixture.pick(i);
    REQUIRE(index == next[source]);  // Samples of a source are taken in turn, none left out.
    ++next[source];
    ++in_stretch[source];
    if ((i + 1) % stretch == 0) {
      for (size_t s = 0; s < weights.size(); ++s)
        REQUIRE(std::abs(in_stretch[s] - weights[s] / 10 * stretch) <= 4);
      in_stretch.assign(weights.size(), 0);
    }
  }
  CHECK(next[1] == 0);
  for (size_t s = 0; s < weights.size(); ++s)
    CHECK(next[s] == Approx(weights[s] / 10 * 50 * stretch).epsilon(0.01));
  // Far away, where the counts no longer fit 53 bits.
  const auto far = mixture.pick(int64_t{1} << 60);
  CHECK(static_cast<double>(far.index) == Approx(weights[far.source] / 10 * 0x1p60).epsilon(1e-6));
}

TEST_CASE("one source takes every sample, and seeds move the mixture", "[core][core-loader]") {
  const Mixture one({3.0}, 1);
  for (int64_t i = 0; i < 100; ++i) CHECK(one.pick(i).index == i);
  const Mixture a({0.5, 0.5}, 1), b({0.5, 0.5}, 2), c({0.9, 0.1}, 1), d({0.9, 0.1}, 5);
  int differ = 0;
  for (int64_t i = 0; i < 1000; ++i)
    differ += (a.pick(i).source != b.pick(i).source) + (c.pick(i).source != d.pick(i).source);
  CHECK(differ > 0);
}

TEST_CASE("sources are told with their shares", "[core][core-loader]") {
  ScratchFolder folder;
  DataConfig config;
  config.seq_len = 4;
  config.train = {
      {write_set(folder / "a", distinct_documents({6, 7}), 100, {99, 100, "", "", -1, -1}), 3},
      {write_set(folder / "b", distinct_documents({9}), 100) + ".bin", 1}};
  const auto sources = TrainSampler(config, 1, 100).sources();
  REQUIRE(sources.size() == 2);
  CHECK(sources[0].path == folder / "a");
  CHECK(sources[0].weight == 0.75);
  CHECK(sources[0].documents == 2);
  CHECK(sources[0].tokens == 13);
  CHECK(sources[0].bytes == 99);
  CHECK(sources[1].path == folder / "b");
}

TEST_CASE("a source that cannot be trained on is refused with the reason", "[core][core-loader]") {
  ScratchFolder folder;
  const std::string good = write_set(folder / "good", distinct_documents({20, 20}), 100);
  const auto refusal = [&](const DataConfig& config, int64_t vocab_size = 100) -> std::string {
    try {
      TrainSampler sampler(config, 1, vocab_size);
    } catch (const InputError& error) {
      return error.what();
    }
    return "";
  };
  using Catch::Contains;
  REQUIRE(refusal(one_source(good, 39)).empty());
  CHECK_THAT(refusal(one_source(good, 40)), Contains("good: 40 tokens in 2 documents, too few"));
  CHECK_THAT(refusal(one_source(good, 0)), Contains("data.seq_len is 0"));
  CHECK_THAT(
      refusal(one_source(good, 8), 30),
      Contains("good.bin: token 10 of document 1 is 30, but the vocabulary has ids 0 to 29"));
  CHECK_THAT(refusal(one_source(write_set(folder / "empty", {}, 10), 8)), Contains("0 tokens"));
  CHECK_THAT(refusal(one_source(folder / "nothing", 8)), Contains("nothing.idx: cannot be read"));
  DataConfig config = one_source(good, 8);
  config.train[0].weight = -1;
  CHECK_THAT(refusal(config), Contains("has the weight -1"));
  config.train[0].weight = std::nan("");
  CHECK_THAT(refusal(config), Contains("has the weight nan"));
  config.train[0].weight = 0;
  CHECK_THAT(refusal(config), Contains("weights sum to 0"));
  config.train.clear();
  CHECK_THAT(refusal(config), Contains("data.train names no source"));
}

TEST_CASE("the held-out set covers every token once, in order", "[core][core-loader]") {
  ScratchFolder folder;
  const auto documents = distinct_documents(kLengths);
  const std::string prefix = write_set(folder / "a", documents, 1000, {123, 1000, "", "", -1, -1});
  const int64_t seq_len = GENERATE(1, 7, 11, 88, 200);
  const ValidationSet set(prefix, seq_len, 1000);
  const int64_t num_tokens = 89;
  REQUIRE(set.num_tokens() == num_tokens);
  CHECK(set.num_documents() == static_cast<int64_t>(kLengths.size()));
  CHECK(set.num_bytes() == 123);
  CHECK(set.num_rows() == (num_tokens - 1 + seq_len - 1) / seq_len);
  const Batch all = set.rows(0, set.num_rows());

  std::set<int64_t> expected;
  for (const auto& document : documents)
    for (size_t i = 1; i < document.size(); ++i) expected.insert(document[i]);
  std::set<int64_t> found;
  for (const auto& [before, target] : targets(all)) {
    CHECK(target == before + 1);
    CHECK(found.insert(target).second);
  }
  CHECK(found == expected);
  for (int64_t row = 0; row < all.num_rows(); ++row) {
    CHECK(equal(set.rows(row, 1), slice(all, row, 1)));
    for (int64_t t = 0; t <= seq_len; ++t) {
      const bool padding = row * seq_len + t >= num_tokens;
      REQUIRE((element(all.document_id, row, t) == -1) == padding);
      if (!padding) REQUIRE(element(all.tokens, row, t) == row * seq_len + t);
    }
  }
  CHECK_THROWS_AS(set.rows(0, set.num_rows() + 1), Error);
}

TEST_CASE("a held-out set that says nothing is refused", "[core][core-loader]") {
  ScratchFolder folder;
  CHECK_THROWS_AS(ValidationSet(write_set(folder / "a", {{1}}, 10), 8, 10), InputError);
  CHECK_THROWS_AS(ValidationSet(write_set(folder / "b", {{1, 9}}, 10), 8, 9), InputError);
  CHECK_THROWS_AS(ValidationSet(folder / "c", 8, 9), InputError);
}
