#include "rl/run_origin.h"

#include "core/base/error.h"

namespace cohort::rl {

moe::StartingWeights RunOrigin::weights() const {
  if (!model) return {};
  return [folder = *model](moe::Transformer& policy) { load_model_weights(folder, policy); };
}

core::Tokenizer RunOrigin::tokenizer(const core::ModelConfig& config) const {
  auto tokenizer = core::Tokenizer::parse(files.tokenizer_json, tokenizer_path);
  COHORT_CHECK_INPUT(tokenizer.vocab_size() <= config.vocab_size,
                     "{} has {} tokens and the model {}; they do not belong together",
                     tokenizer_path,
                     tokenizer.vocab_size(),
                     config.vocab_size);
  return tokenizer;
}

RunOrigin find_origin(const core::Config& config,
                      const distributed::Mesh& mesh,
                      bool resume,
                      const std::string& what) {
  RunOrigin origin{moe::open_run_folder(config, mesh, resume), std::nullopt, ""};
  if (!origin.files.checkpoint) {
    COHORT_CHECK_INPUT(!config.run.model.empty(),
                       "run.model is not given: {} starts from a trained model; name its folder "
                       "with --model DIR",
                       what);
    origin.model = open_model_folder(config.run.model, mesh);
  }
  const std::string folder = origin.model ? origin.model->path : *origin.files.checkpoint;
  const std::string& path = origin.tokenizer_path =
      config.data.tokenizer.empty() ? folder + "/tokenizer.json" : config.data.tokenizer;
  origin.files.tokenizer_json = moe::file_text(path);
  COHORT_CHECK_INPUT(!origin.files.tokenizer_json.empty(),
                     "there is no tokenizer at {}; name one with data.tokenizer",
                     path);
  return origin;
}

}  // namespace cohort::rl
