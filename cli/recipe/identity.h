// What tells whether a stage's inputs or output are still what they were.
#pragma once
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/recipe/recipe.h"

namespace cohort::cli {

/// Of a file, or of a folder: XXH3 of its bytes, and the sizes and times that spare reading them
/// again. Of a run folder only the newest checkpoint counts, by its manifest, which holds a
/// checksum of every byte; logs may grow.
struct Identity {
  std::string digest;   ///< Empty when nothing is there.
  std::string listing;  ///< XXH3 of names, sizes and times.
};

/// Reads the bytes only where `earlier`'s listing is not the present one. Throws Error when
/// something cannot be read.
Identity identify(const std::string& path, const Identity& earlier = {});

/// Existing files outside of `dir` that words of the command are, or end in after a '=', and the
/// stage's `inputs`; sorted. Throws InputError for an input that is not there.
std::vector<std::string> input_files(const Recipe& recipe, const Stage& stage);

/// XXH3 over the command, its input files and the outputs it uses (by stage). Not over ranks and
/// launcher: what a model learns does not depend on where it is computed.
std::string key_of(const Recipe& recipe,
                   const Stage& stage,
                   const std::map<std::string, Identity>& outputs);

}  // namespace cohort::cli
