// The one table of configuration keys: name, member, what it takes and what it means. Parsing,
// to_yaml, suggestions for unknown keys and the help text all read it.
#pragma once
#include <limits>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "core/config/config.h"

namespace cohort::core {

/// A member of some Config.
using FieldRef = std::variant<bool*,
                              int*,
                              int64_t*,
                              uint64_t*,
                              double*,
                              std::string*,
                              std::array<double, 2>*,
                              std::vector<DataSource>*,
                              NamedOptions*,
                              std::vector<NamedOptions>*,
                              std::vector<std::string>*>;

/// What a key takes, beyond its type.
struct Allowed {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool low_open = false, high_open = false;  ///< Whether the end itself is excluded.
  std::vector<std::string> choices;          ///< Text: the known values.
  /// A word that may stand for one value: {"auto", 0}; for text, {"null", ...} is the empty text.
  struct Word {
    std::string word;
    double value;
  };
  std::optional<Word> word;
};

struct Field {
  std::string key;          ///< "model.rope_parameters.factor"
  FieldRef (*at)(Config&);  ///< Where the value lives.
  Allowed allowed;          ///< Range, choices.
  std::string meaning;      ///< One line, with the unit.
};

/// All of them, in the order of config.h; keys of one section stand together.
const std::vector<Field>& fields();
/// The field of a key, or nullptr.
const Field* find_field(const std::string& key);
/// Whether some field lies below `key` ("model", "model.rope_parameters").
bool is_section(const std::string& key);

/// Whether overrides may go on below the field (data.train.0.path, rl.task.count).
bool has_parts(const Field& field);

/// `model.from`, the one key that is no member: the config.json to start from.
inline constexpr const char* kFromKey = "model.from";
inline constexpr const char* kFromMeaning =
    "config.json of a Hugging Face model (or its folder) to start from; other keys override it";

/// The key that `written` stands for: Hugging Face's other spellings (model.rope_scaling,
/// model.rope_theta, model.num_experts, ...) become the table's.
std::string canonical_key(const std::string& written);

/// "a whole number >= 1, or null"
std::string describe(const Field& field);

}  // namespace cohort::core
