#include "rl/run_origin.h"

#include <filesystem>

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
                      const std::string& what,
                      bool may_be_new) {
  RunOrigin origin{moe::open_run_folder(config, mesh, resume), std::nullopt, "", ""};
  const std::string& tokenizer = config.data.tokenizer;
  const bool is_new = may_be_new && config.run.model.empty() && !tokenizer.empty();
  if (origin.files.checkpoint) {
    origin.folder = *origin.files.checkpoint;
  } else if (is_new) {
    const std::string beside = std::filesystem::path(tokenizer).parent_path().string();
    origin.folder = beside.empty() ? std::string(1, '.') : beside;
    origin.files.carried = moe::carried_files(origin.folder);
  } else {
    COHORT_CHECK_INPUT(
        !config.run.model.empty(),
        "run.model is not given: {} starts from a trained model; name its folder "
        "with --model DIR{}",
        what,
        may_be_new ? ", or a tokenizer with data.tokenizer to start from new weights" : "");
    origin.model = open_model_folder(config.run.model, mesh);
    origin.folder = origin.model->path;
  }
  const std::string& path = origin.tokenizer_path =
      tokenizer.empty() ? origin.folder + "/tokenizer.json" : tokenizer;
  origin.files.tokenizer_json = moe::file_text(path);
  COHORT_CHECK_INPUT(!origin.files.tokenizer_json.empty(),
                     "there is no tokenizer at {}; name one with data.tokenizer",
                     path);
  return origin;
}

}  // namespace cohort::rl
