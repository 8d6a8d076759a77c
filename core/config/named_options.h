// Components with options of their own (a task, a reward) in YAML, and back to text.
#pragma once
#include <yaml-cpp/yaml.h>

#include <string>
#include <vector>

#include "core/config/config.h"
#include "core/config/values.h"

namespace cohort::core {

/// A task has a name and options; a reward has a weight too.
enum class Component { kTask, kReward };

/// A name alone, or a map with `name`. Options become JSON: plain scalars are null, true, false, a
/// whole number, a number or else text; quoted ones are text. Throws InputError, `key` in front.
NamedOptions read_named_options(Component component,
                                const YAML::Node& node,
                                const Source& source,
                                const std::string& key);

/// A list of them, or a single one.
std::vector<NamedOptions> read_named_list(const YAML::Node& node,
                                          const Source& source,
                                          const std::string& key);

/// An override below a component: `member` is name, weight or an option.
void set_named_member(Component component,
                      NamedOptions& target,
                      const std::string& member,
                      const YAML::Node& node,
                      const Source& source,
                      const std::string& key);

/// "countdown", or "{name: countdown, count: 3}"; weight only where it is not 1. Reads back as the
/// same value.
std::string named_text(const NamedOptions& value);

}  // namespace cohort::core
