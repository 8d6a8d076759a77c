// The masked loss, against plain ATen on whole logits, and packed against alone.
#include "rl/sft_loss.h"

#include "core/base/rng.h"
#include "core/nn/linear.h"
#include "tests/catch.h"
#include "tests/moe/tiny.h"
#include "tests/rl/sft_examples.h"

using namespace cohort;

namespace {

core::ModelConfig config() {
  auto config = tests::tiny_model();
  config.vocab_size = 280;
  config.bos_token_id = 0;
  config.eos_token_id = 1;
  return config;
}

struct Fixture {
  tests::ScratchFolder folder;
  core::Tokenizer tokenizer = tests::chat_tokenizer();
  std::vector<rl::SftFile> files;
  distributed::Mesh mesh = distributed::make_local_mesh();
  moe::Transformer model;
  std::vector<rl::PackedRow> rows;

  explicit Fixture(at::ScalarType dtype, int64_t examples = 12)
      : model(config(), mesh.ep, 3, dtype) {
    files.emplace_back(folder.write("x.jsonl", tests::made_up_examples(examples, 1)),
                       tests::format_of(tokenizer),
                       64);
    rows = rl::pack_rows(files, 64);
  }
  /// Each example in a row of its own.
  std::vector<rl::PackedRow> alone() const {
    std::vector<rl::PackedRow> out;
    for (int64_t i = 0; i < files[0].count(); ++i) out.push_back({{{0, i}}, files[0].length(i)});
    return out;
  }
  rl::SftBatch batch(std::span<const rl::PackedRow> of, int64_t depths = 2) const {
    return rl::make_sft_batch(files, of, depths);
  }
  at::Tensor head_gradient(const at::Tensor& loss) {
    for (auto& p : model.parameters()) p.value.mutable_grad() = at::Tensor();
    loss.backward();
    return model.head().grad();
  }
};

/// -sum of log_softmax over an example's trained tokens at a depth, one position at a time.
at::Tensor plain_nats(const at::Tensor& hidden,
                      const at::Tensor& head,
                      const rl::SftFile& file,
                      int64_t example,
                      int64_t k) {
  at::Tensor sum = at::zeros({}, hidden.options());
  const auto tokens = file.tokens(example);
  for (int64_t t = k + 1; t < file.length(example); ++t) {
    if (!file.trained(example, t)) continue;
    const at::Tensor logits = at::mv(head, hidden[0][t - k - 1]);
    sum = sum - at::log_softmax(logits, 0)[tokens[t]];
  }
  return sum;
}

}  // namespace

TEST_CASE("the loss is the mean over trained tokens, of every depth", "[rl-sft_loss]") {
  Fixture f(at::kDouble);
  const auto counts = rl::count_rows(f.files, f.rows, 2);
  const double lambda = 0.3;
  const auto terms = rl::sft_loss(f.model, f.batch(f.rows), counts.targets, lambda, false);
  const at::Tensor gradient = f.head_gradient(terms.total).clone();

  // Example by example, each a row without boundaries for the ordinary forward pass.
  std::vector<at::Tensor> nats(3, at::zeros({}, at::kDouble));
  std::vector<int64_t> trained(3);
  for (int64_t i = 0; i < f.files[0].count(); ++i) {
    const auto tokens = f.files[0].tokens(i);
    const int64_t length = f.files[0].length(i);
    at::Tensor ids = at::empty({1, length - 1}, at::kLong);
    std::copy(tokens.begin(), tokens.end() - 1, ids.data_ptr<int64_t>());
    const auto out = f.model.forward(ids, at::Tensor(), {false, false, length - 1 > 2});
    for (int64_t k = 0; k <= (length - 1 > 2 ? 2 : 0); ++k) {
      const auto& hidden = k == 0 ? out.hidden : out.mtp_hidden[k - 1];
      nats[k] = nats[k] + plain_nats(hidden, f.model.head(), f.files[0], i, k);
      for (int64_t t = k + 1; t < length; ++t) trained[k] += f.files[0].trained(i, t);
    }
  }
  CHECK(trained == counts.targets);
  const at::Tensor mtp = (nats[1] / trained[1] + nats[2] / trained[2]) / 2;
  const at::Tensor expected = nats[0] / trained[0] + lambda * mtp;
  CHECK(terms.total.item<double>() == Approx(expected.item<double>()).epsilon(1e-12));
  CHECK(terms.parts[0].second.item<double>() ==
        Approx((nats[0] / trained[0]).item<double>()).epsilon(1e-12));
  CHECK(terms.parts[1].second.item<double>() == Approx(mtp.item<double>()).epsilon(1e-12));
  CHECK(at::allclose(gradient, f.head_gradient(expected), 1e-9, 1e-14));
}

TEST_CASE("a prompt's tokens are not taught, but read", "[rl-sft_loss]") {
  Fixture f(at::kDouble, 1);
  auto batch = f.batch(f.rows);
  const double before = rl::sft_nats(f.model, batch);
  int64_t trained = 0;
  for (int64_t t = 1; t < f.files[0].length(0); ++t) trained += f.files[0].trained(0, t);
  CHECK(batch.targets[0].ge(0).sum().item<int64_t>() == trained);
  CHECK(trained < f.files[0].length(0) - 1);
  batch.input_ids[0][1] = (batch.input_ids[0][1] + 1) % 256 + 4;
  CHECK(rl::sft_nats(f.model, batch) != before);
}

TEST_CASE("an example's hidden states are the same packed and alone", "[rl-sft_loss]") {
  Fixture f(at::kFloat);
  at::NoGradGuard no_grad;
  const moe::PassOptions pass{false, false, true};
  const auto packed_batch = f.batch(f.rows);
  const auto packed = f.model.forward(packed_batch.input_ids, packed_batch.layout, pass);
  std::vector<int64_t> at(3);
  for (const auto& row : f.rows)
    for (const auto& example : row.examples) {
      const rl::PackedRow one{{example}, f.files[0].length(example.index)};
      const auto batch = f.batch({&one, 1});
      const auto out = f.model.forward(batch.input_ids, batch.layout, pass);
      for (int64_t k = 0; k <= 2; ++k) {
        const auto& alone = k == 0 ? out.hidden : out.mtp_hidden[k - 1];
        const auto& all = k == 0 ? packed.hidden : packed.mtp_hidden[k - 1];
        REQUIRE(alone.size(1) == batch.targets[k].numel());
        const auto part = all.narrow(1, at[k], alone.size(1));
        CHECK(at::allclose(part, alone, 1e-5, 1e-6));
        if (core::own_fp32_gemm()) CHECK(at::equal(part, alone));
        at[k] += alone.size(1);
      }
    }
  CHECK(at[0] == packed.hidden.size(1));
  CHECK(at[2] == packed.mtp_hidden[1].size(1));
}

TEST_CASE("loss and gradients do not depend on packing or micro-batches", "[rl-sft_loss]") {
  Fixture f(at::kDouble, 20);
  const auto counts = rl::count_rows(f.files, f.rows, 2);
  const auto total = [&](std::span<const rl::PackedRow> rows, bool recompute) {
    return rl::sft_loss(f.model, f.batch(rows), counts.targets, 0.3, recompute).total;
  };
  const at::Tensor whole = total(f.rows, false);
  const at::Tensor gradient = f.head_gradient(whole).clone();
  at::Tensor parts = at::zeros({}, at::kDouble);
  for (const auto& row : f.alone()) parts = parts + total({&row, 1}, true);
  CHECK(parts.item<double>() == Approx(whole.item<double>()).epsilon(1e-12));
  CHECK(at::allclose(f.head_gradient(parts), gradient, 1e-9, 1e-14));
}

TEST_CASE("examples shorter than a prediction module looks ahead are no trouble", "[rl-sft_loss]") {
  Fixture f(at::kDouble, 1);
  f.files.clear();
  f.files.emplace_back(f.folder.write("s.jsonl", "{\"prompt\": \"\", \"completion\": \"x\"}\n"),
                       tests::format_of(f.tokenizer),
                       64);
  const auto rows = rl::pack_rows(f.files, 64);
  const auto counts = rl::count_rows(f.files, rows, 2);
  CHECK(counts.targets == std::vector<int64_t>{2, 1, 0});
  for (const bool recompute : {false, true}) {
    const auto terms = rl::sft_loss(f.model, f.batch(rows), counts.targets, 0.3, recompute);
    CHECK(f.head_gradient(terms.total).isfinite().all().item<bool>());
    CHECK(std::isfinite(terms.total.item<double>()));
  }
}
