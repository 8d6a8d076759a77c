// One YAML value into one member of a Config, and back to text.
#pragma once
#include <yaml-cpp/yaml.h>

#include <string>

#include "core/config/fields.h"

namespace cohort::core {

/// Where values come from, for messages.
struct Source {
  std::string name;        ///< "tiny.yaml", "override 'train.steps=5'"
  bool has_lines = false;  ///< Whether a node's line means something to the user.
  int key_line = -1;       ///< Line (from 0) of the key, for a value that is absent; -1: unknown.

  /// "tiny.yaml:12", or the name alone.
  std::string at(const YAML::Node& node) const;
  /// Throws InputError: "tiny.yaml:12: train.steps: WRONG; RIGHT".
  [[noreturn]] void refuse(const YAML::Node& node,
                           const std::string& key,
                           const std::string& wrong,
                           const std::string& right) const;
};

/// `text` fit for one line of a message: in quotes, control characters escaped, cut when long.
std::string quoted(const std::string& text);
/// What a node is: "'abc'", "a list", "a map", "null".
std::string shown(const YAML::Node& node);

/// Checks type and range and sets the member. `rest` is what an override named below the field
/// ("0.path" of data.train.0.path, "count" of rl.task.count), else empty; `key` is the key as the
/// user wrote it.
void assign(const Field& field,
            const std::string& rest,
            const YAML::Node& node,
            const Source& source,
            const std::string& key,
            Config& config);

/// A number or a text as YAML on one line; reads back the same, bit for bit.
std::string number_text(double value);
std::string string_text(const std::string& text);

/// The value as YAML on one line; reads back as the very same value.
std::string value_text(const Field& field, const Config& config);

}  // namespace cohort::core
