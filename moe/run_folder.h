// What a run keeps in its folder beside metrics and checkpoints, and the rules for going on in it.
#pragma once
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/config/config.h"
#include "core/data/loader.h"
#include "distributed/mesh.h"

namespace cohort::moe {

struct RunFolder {
  std::optional<std::string> checkpoint;  ///< To go on from.
  std::string tokenizer_json;             ///< Travels with the checkpoints; may be empty.
  /// What else travels with them: see carried_files.
  std::vector<std::pair<std::string, std::string>> carried;
};

/// The text of data.tokenizer, or of the tokenizer recorded beside the first token set; empty when
/// there is neither.
std::string carried_tokenizer(const core::DataConfig& data);

/// The text of a file; empty when it cannot be read.
std::string file_text(const std::string& path);

/// Name and content of the files of a model folder that tell how it is to be used:
/// generation_config.json, tokenizer_config.json, the chat template and what older tokenizers have,
/// as far as they are there. Without tokenizer.json.
std::vector<std::pair<std::string, std::string>> carried_files(const std::string& folder);

/// Makes config.run.dir (rank 0), or finds the newest good checkpoint in it. Throws InputError when
/// it holds a run and `resume` is false, or cannot be made. Carries the files of the checkpoint, or
/// of run.model. The tokenizer is left to the caller. Collective.
RunFolder open_run_folder(const core::Config& config, const distributed::Mesh& mesh, bool resume);

/// Throws InputError when train.epochs is what tells the length of a run without an end of its
/// data.
void check_steps(const core::Config& config);

/// config.yaml (fully resolved) and data_card.json (every source with the card that `cohort data
/// prepare` wrote for it). Rank 0 only.
void write_run_files(const core::Config& config, const std::vector<core::DataSourceInfo>& sources);
/// The same with a card made by the caller.
void write_run_records(const core::Config& config, const nlohmann::ordered_json& data_card);

/// Throws InputError when the run under `folder` was started with settings that a resumed run
/// cannot change (the model, the optimizer); warns about those that make it another run (data,
/// batch, seed). Without `whole`, only the model must be the same.
void check_resumable(const core::Config& config,
                     const std::string& earlier_yaml,
                     const std::string& folder,
                     bool whole = true);

}  // namespace cohort::moe
