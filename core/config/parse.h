// From YAML and command-line overrides to a checked Config, and back.
#pragma once
#include "core/config/config.h"

#include <string>
#include <vector>

namespace cohort::core {

/// Reads `path`, applies `overrides` ("train.steps=500", later ones win) and checks everything that
/// can be checked without ranks or files. Throws InputError with one line: file, line and key (or
/// the override), what is wrong and what would be right (for an unknown key, the nearest known one).
Config parse_config(const std::string& path, const std::vector<std::string>& overrides);
/// The same for text; `name` stands for the file in messages.
Config parse_config_text(const std::string& text,
                         const std::string& name,
                         const std::vector<std::string>& overrides);

/// Every key with its value, in the order of config.h; parsing it gives the same Config.
std::string to_yaml(const Config& config);

}  // namespace cohort::core
