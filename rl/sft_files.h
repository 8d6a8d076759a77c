// The examples of a run of supervised fine-tuning, and what data_card.json tells of them.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/config/config.h"
#include "rl/sft_data.h"

namespace cohort::rl {

struct SftFiles {
  std::vector<SftFile> train;
  std::vector<double> weights;      ///< Of data.train.
  std::vector<SftFile> validation;  ///< One file or none.

  /// Of the training files: examples longer than data.seq_len.
  int64_t left_out() const;
  /// Hashes of the training files, to tell on resuming whether they are still the same.
  std::string fingerprint() const;
};

/// Reads them all. Throws InputError as SftFile does, and when there is no data.train.
SftFiles read_sft_files(const core::DataConfig& data, const SftFormat& format);

/// One line with the counts, where examples were left out.
void warn_of_left_out(const SftFiles& files, int64_t seq_len);

/// Path, hash, documents (examples), tokens, weight and what was dropped of every file.
nlohmann::ordered_json sft_data_card(const SftFiles& files, const core::DataConfig& data);

}  // namespace cohort::rl
