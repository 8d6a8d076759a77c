// What an unknown key was probably meant to be.
#pragma once
#include <string>

namespace cohort::core {

/// The end of a message about the unknown `key`: "did you mean train.steps?", or the known keys of
/// its section.
std::string suggest_key(const std::string& key);

}  // namespace cohort::core
