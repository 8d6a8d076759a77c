// What is fed with mutated files, and what must then happen: it is read, or InputError says why
// not.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "tests/fuzz/mutation.h"
#include "tests/scratch_folder.h"

namespace cohort::tests {

struct FuzzTarget {
  std::string kind;
  /// Writes the mutated file into the folder.
  std::function<void(Mutation&)> write;
  /// Reads it as the product does. InputError is an answer; anything else is a fault.
  std::function<void()> read;
};

/// safetensors, index, config, generation_config, tokenizer. `folder` outlives the targets.
std::vector<FuzzTarget> fuzz_targets(const ScratchFolder& folder);

}  // namespace cohort::tests
