// Multi-token prediction: losses, logits and every gradient.
#include "core/nn/cross_entropy.h"
#include "moe/pretrain_loss.h"
#include "tests/catch.h"
#include "tests/fixtures.h"
#include "tests/moe/reference_model.h"

using namespace cohort;
namespace fs = std::filesystem;

namespace {

double largest(const at::Tensor& t) { return t.numel() ? t.abs().max().item<double>() : 0; }

double part(const moe::LossTerms& terms, const std::string& name) {
  for (const auto& [key, value] : terms.parts)
    if (key == name) return value.item<double>();
  throw std::runtime_error("no part " + name);
}

moe::LossTerms loss_of(moe::Transformer& model, const at::Tensor& ids, double lambda) {
  core::TrainConfig train;
  train.mtp_loss_weight = lambda;
  core::RouterConfig router;
  router.sequence_loss_alpha = 0;
  const std::vector<core::Batch> batches{{ids, {}}};
  const auto mesh = distributed::make_local_mesh();
  return moe::pretrain_loss(batches, model.config(), router, train, mesh)(model, batches[0]);
}

/// A folder with a DeepSeek-V3 model of one module, in fp32.
void check_folder(const fs::path& folder) {
  tests::ReferenceModel r(folder);
  auto io = core::read_safetensors((folder / "io.safetensors").string());
  const auto terms = loss_of(*r.model, io["input_ids"], 0.3);
  CHECK(std::abs(part(terms, "lm_loss") - io["lm_loss"].item<double>()) < 1e-5);
  CHECK(std::abs(part(terms, "mtp_loss") - io["mtp_loss"].item<double>()) < 1e-5);
  CHECK(std::abs(terms.total.item<double>() - io["loss"].item<double>()) < 1e-5);
  terms.total.backward();
  tests::compare_parts(
      *r.model,
      core::read_safetensors((folder / "grads.safetensors").string()),
      [](const core::Parameter& p) { return p.value.grad(); },
      [](const std::string& name, const at::Tensor& ours, const at::Tensor& theirs) {
        INFO(name);
        CHECK(largest(ours - theirs) <= 1e-4 * largest(theirs) + 1e-12);
      });
  at::NoGradGuard no_grad;
  moe::PassOptions pass;
  pass.mtp = true;
  const auto out = r.model->forward(io["input_ids"], at::Tensor(), pass);
  const at::Tensor logits = at::matmul(out.mtp_hidden.at(0), r.model->head().t());
  CHECK(largest(logits - io["mtp_logits"]) < 2e-4);
}

/// A file with a dense fp64 model of several modules, in one of the orders and places that
/// codebases choose.
void check_file(const fs::path& path) {
  auto t = core::read_safetensors(path.string());
  const int64_t depth = t["depth"].item<int64_t>();
  core::ModelConfig c;
  c.model_type = "qwen2";
  c.vocab_size = t["w.lm_head.weight"].size(0);
  c.hidden_size = t["w.lm_head.weight"].size(1);
  c.intermediate_size = t["w.model.layers.0.mlp.gate_proj.weight"].size(0);
  c.num_hidden_layers = 1;
  c.num_attention_heads = c.num_key_value_heads = t["heads"].item<int64_t>();
  c.head_dim = t["head_dim"].item<int64_t>();
  c.kv_lora_rank = 0;
  c.n_routed_experts = 0;
  c.rope_interleave = false;
  c.rope.rope_theta = t["theta"].item<double>();
  c.rms_norm_eps = t["eps"].item<double>();
  c.num_nextn_predict_layers = depth;
  c.mtp_embedding_first = t["embedding_first"].item<int64_t>() != 0;
  c.mtp_after_norm = t["after_norm"].item<int64_t>() != 0;

  const auto reference_name = [](std::string name) {  // model.layers.K.x (K >= 1) is mtp.K.x
    const std::string layers = "model.layers.";
    if (name.rfind(layers, 0) == 0 && name[layers.size()] != '0')
      name = "mtp." + name.substr(layers.size());
    return name;
  };
  const auto mesh = distributed::make_local_mesh();
  moe::Transformer model(c, mesh.ep, 1, at::kDouble);
  moe::load_weights(model, [&](const std::string& name, const std::vector<int64_t>&) {
    return t.at("w." + reference_name(name));
  });
  const auto terms = loss_of(model, t["input_ids"], t["lambda"].item<double>());
  double mean = 0;
  for (int64_t k = 1; k <= depth; ++k)
    mean += t["mtp_loss_" + std::to_string(k)].item<double>() / static_cast<double>(depth);
  // fp64 on both sides: rounding only.
  CHECK(std::abs(part(terms, "lm_loss") - t["main_loss"].item<double>()) < 1e-11);
  CHECK(std::abs(part(terms, "mtp_loss") - mean) < 1e-11);
  CHECK(std::abs(terms.total.item<double>() - t["total_loss"].item<double>()) < 1e-11);
  terms.total.backward();
  for (const auto& parameter : model.parameters())
    for (const auto& p : parameter.parts) {
      const at::Tensor& theirs = t.at("d." + reference_name(p.name));
      const at::Tensor ours = parameter.value.grad()
                                  .reshape({-1})
                                  .narrow(0, p.offset, theirs.numel())
                                  .view(theirs.sizes());
      INFO(p.name);
      CHECK(largest(ours - theirs) < 1e-11);
    }
}

}  // namespace

TEST_CASE("Multi-token prediction equals the reference", "[moe][mtp][parity]") {
  for (const auto& path : tests::cases("mtp")) {
    INFO(path.string());
    if (fs::is_directory(path))
      check_folder(path);
    else
      check_file(path);
  }
}

TEST_CASE("A target lies in the document of the position that predicts it", "[moe][mtp]") {
  const core::Batch batch{at::arange(8).view({1, 8}),
                          at::tensor({0, 0, 0, 0, 1, 1, 1, -1}, at::kLong).view({1, 8})};
  const auto targets = [&](int64_t k) {
    const at::Tensor t = moe::prediction_targets(batch, k).contiguous();
    return std::vector<int64_t>(t.data_ptr<int64_t>(), t.data_ptr<int64_t>() + t.numel());
  };
  CHECK(targets(0) == std::vector<int64_t>{1, 2, 3, -1, 5, 6, -1});
  CHECK(targets(1) == std::vector<int64_t>{2, 3, -1, -1, 6, -1});
  CHECK(targets(2) == std::vector<int64_t>{3, -1, -1, -1, -1});
}
