#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

#include "cli/recipe/recipe.h"
#include "cli/recipe/words.h"
#include "core/base/error.h"
#include "core/config/values.h"

namespace cohort::cli {
namespace {

namespace fs = std::filesystem;

/// The file as it is read, with what is known so far.
class Reader {
 public:
  Reader(const std::string& file, const std::vector<std::string>& overrides)
      : source_{file, true}, overrides_(overrides) {
    recipe_.file = file;
  }

  Recipe read() {
    const YAML::Node root = load();
    check_map(
        root, "a recipe", {"title", "dir", "launch", "settings", "stages", "evaluate", "table"});
    read_settings(root["settings"]);
    apply_overrides();
    recipe_.title = text_or(root, "title", fs::path(recipe_.file).stem().string());
    if (recipe_.dir.empty()) recipe_.dir = text(root, "dir", "the folder for all outputs");
    names_["dir"] = recipe_.dir;
    recipe_.launch = split_words(text_or(root, "launch", "mpirun -n ${ranks}"), "launch");
    const YAML::Node stages = root["stages"];
    if (!stages || !stages.IsSequence() || stages.size() == 0)
      source_.refuse(stages ? stages : root, "stages", "there is none", "want a list of stages");
    read_table(root);
    for (const auto& stage : stages) add_stage(stage);
    finish_table();
    return std::move(recipe_);
  }

 private:
  YAML::Node load() const {
    try {
      return YAML::LoadFile(recipe_.file);
    } catch (const YAML::BadFile&) {
      throw InputError(
          fmt::format("{}: cannot be read; want the YAML file of a recipe, such as "
                      "configs/recipes/r1_tiny.yaml",
                      recipe_.file));
    } catch (const YAML::ParserException& error) {
      throw InputError(
          fmt::format("{}:{}: is not YAML: {}", recipe_.file, error.mark.line + 1, error.msg));
    }
  }

  void check_map(const YAML::Node& node,
                 const std::string& what,
                 const std::vector<std::string>& keys) const {
    if (!node.IsMap())
      source_.refuse(node,
                     what,
                     core::shown(node) + " stands there",
                     fmt::format("want a map of {}", fmt::join(keys, ", ")));
    std::set<std::string> seen;
    for (const auto& pair : node) {
      const std::string key = pair.first.IsScalar() ? pair.first.Scalar() : core::shown(pair.first);
      if (std::find(keys.begin(), keys.end(), key) == keys.end())
        source_.refuse(pair.first,
                       core::quoted(key),
                       "unknown key of " + what,
                       fmt::format("there are {}", fmt::join(keys, ", ")));
      if (!seen.insert(key).second)
        source_.refuse(pair.first, key, "stands here twice", "remove one");
    }
  }

  std::string scalar(const YAML::Node& node, const std::string& key) const {
    if (!node.IsScalar()) source_.refuse(node, key, core::shown(node) + " is no text", "want text");
    return node.Scalar();
  }

  std::string text(const YAML::Node& map, const char* key, const std::string& what) const {
    const YAML::Node node = map[key];
    if (!node || !node.IsScalar() || node.Scalar().empty())
      source_.refuse(node ? node : map, key, "is missing", "want " + what);
    return node.Scalar();
  }

  std::string text_or(const YAML::Node& map, const char* key, const std::string& other) const {
    const YAML::Node node = map[key];
    return node && !node.IsNull() ? scalar(node, key) : other;
  }

  int64_t ranks_of(const YAML::Node& map) const {
    const YAML::Node node = map["ranks"];
    if (!node) return 1;
    const std::string value = replaced(scalar(node, "ranks"), node, "ranks");
    if (value.empty() || value.size() > 6 ||
        value.find_first_not_of("0123456789") != std::string::npos || std::stoll(value) < 1)
      source_.refuse(
          node, "ranks", core::quoted(value) + " is no number of ranks", "want 1 or more");
    return std::stoll(value);
  }

  void read_settings(const YAML::Node& node) {
    if (!node || node.IsNull()) return;
    if (!node.IsMap())
      source_.refuse(
          node, "settings", core::shown(node) + " stands there", "want names with values");
    for (const auto& pair : node) {
      const std::string name = scalar(pair.first, "settings");
      claim(name, pair.first);
      names_[name] = scalar(pair.second, "settings." + name);
      settings_.insert(name);
    }
  }

  void apply_overrides() {
    for (const std::string& override : overrides_) {
      const size_t equals = override.find('=');
      const std::string name = override.substr(0, equals);
      COHORT_CHECK_INPUT(equals != std::string::npos && equals > 0 && equals + 1 < override.size(),
                         "'{}': want NAME=VALUE, such as dir=FOLDER or a setting of {}",
                         override,
                         recipe_.file);
      if (name == "dir") {
        recipe_.dir = override.substr(equals + 1);
        continue;
      }
      COHORT_CHECK_INPUT(settings_.contains(name),
                         "'{}': {} has no setting {}; there are dir{}{}",
                         override,
                         recipe_.file,
                         core::quoted(name),
                         settings_.empty() ? "" : ", ",
                         fmt::join(settings_, ", "));
      names_[name] = override.substr(equals + 1);
    }
  }

  /// A name may mean one thing only, and be one path component.
  void claim(const std::string& name, const YAML::Node& node) const {
    const bool plain = !name.empty() && name.size() <= 64 &&
                       std::all_of(name.begin(), name.end(), [](unsigned char c) {
                         return c < 128 && (std::isalnum(c) || c == '_' || c == '-');
                       });
    if (!plain)
      source_.refuse(node, core::quoted(name), "is no name", "want letters, digits, _ and -");
    if (name == "out" || name == "dir" || name == "ranks" || names_.contains(name))
      source_.refuse(node, name, "has a meaning already", "choose another name");
  }

  std::vector<std::string> split_words(const std::string& line, const std::string& key) const {
    auto words = shell_words(line);
    COHORT_CHECK_INPUT(words.has_value(),
                       "{}: {}: a quote is not closed: {}",
                       source_.name,
                       key,
                       core::quoted(line));
    return *words;
  }

  /// Replaces ${...}; notes the stages that were named in `after`.
  std::string replaced(const std::string& text,
                       const YAML::Node& node,
                       const std::string& key,
                       std::vector<size_t>* after = nullptr) const {
    std::string result;
    for (size_t at = 0; at < text.size();) {
      if (text.compare(at, 2, "${") != 0) {
        result += text[at++];
        continue;
      }
      const size_t end = text.find('}', at);
      const std::string name = text.substr(at + 2, end == std::string::npos ? end : end - at - 2);
      const auto found = names_.find(name);
      if (end == std::string::npos || found == names_.end()) {
        std::vector<std::string> known;
        for (const auto& [each, value] : names_) known.push_back(each);
        source_.refuse(node,
                       key,
                       core::quoted("${" + name) + " is not known at this stage",
                       fmt::format("there are {}", fmt::join(known, ", ")));
      }
      result += found->second;
      if (const auto stage = stage_of_.find(name); after && stage != stage_of_.end())
        after->push_back(stage->second);
      at = end + 1;
    }
    return result;
  }

  void add_stage(const YAML::Node& node) {
    check_map(node, "a stage", {"name", "about", "run", "ranks", "out", "inputs", "resumes"});
    Stage stage;
    stage.name = text(node, "name", "a name for the stage");
    claim(stage.name, node["name"]);
    stage.about = text_or(node, "about", "");
    stage.ranks = ranks_of(node);
    stage.out = recipe_.dir + "/" + checked_out(node, stage.name);
    read_command(node, text(node, "run", "the command"), stage);
    if (const YAML::Node inputs = node["inputs"]) {
      if (!inputs.IsSequence())
        source_.refuse(
            inputs, "inputs", core::shown(inputs) + " stands there", "want a list of files");
      for (const auto& input : inputs)
        stage.inputs.push_back(replaced(scalar(input, "inputs"), input, "inputs", &stage.after));
    }
    if (const YAML::Node resumes = node["resumes"]) {
      const std::string value = scalar(resumes, "resumes");
      if (value != "true" && value != "false")
        source_.refuse(
            resumes, "resumes", core::quoted(value) + " is neither", "want true or false");
      stage.resumes = value == "true";
    }
    push(std::move(stage));
    add_evaluation(recipe_.stages.size() - 1);
  }

  /// Below dir, and no other stage's.
  std::string checked_out(const YAML::Node& node, const std::string& name) const {
    const std::string out = text_or(node, "out", name);
    const fs::path path = fs::path(out).lexically_normal();
    if (out.empty() || path.is_absolute() || *path.begin() == ".." || path == ".")
      source_.refuse(node["out"],
                     "out",
                     core::quoted(out) + " is not below dir",
                     "want a name such as " + name);
    for (const Stage& other : recipe_.stages)
      if (fs::path(other.out).lexically_normal() ==
          (fs::path(recipe_.dir) / path).lexically_normal())
        source_.refuse(
            node, "out", core::quoted(out) + " is stage " + other.name + "'s", "want another name");
    return path.string();
  }

  void read_command(const YAML::Node& node, const std::string& run, Stage& stage) {
    names_["out"] = stage.out;
    names_["ranks"] = std::to_string(stage.ranks);
    for (const std::string& word : split_words(run, "run"))
      stage.command.push_back(replaced(word, node["run"], stage.name, &stage.after));
    names_.erase("out");
    names_.erase("ranks");
    if (stage.command.empty()) source_.refuse(node, "run", "is empty", "want a command");
    stage.resumes = std::count(stage.command.begin(), stage.command.end(), "--resume") > 0;
  }

  void push(Stage stage) {
    std::sort(stage.after.begin(), stage.after.end());
    stage.after.erase(std::unique(stage.after.begin(), stage.after.end()), stage.after.end());
    names_[stage.name] = stage.out;
    stage_of_[stage.name] = recipe_.stages.size();
    recipe_.stages.push_back(std::move(stage));
  }

  void read_table(const YAML::Node& root) {
    const YAML::Node table = root["table"], evaluate = root["evaluate"];
    if (!table || table.IsNull()) return;
    if (!table.IsSequence())
      source_.refuse(table, "table", core::shown(table) + " stands there", "want a list of models");
    if (!evaluate)
      source_.refuse(table, "evaluate", "is missing", "want options of cohort eval for the table");
    check_map(evaluate, "evaluate", {"ranks", "options", "inputs"});
    evaluate_ = evaluate;
    for (const auto& row : table) {
      check_map(row, "a row of the table", {"model", "label", "about"});
      const std::string model = text(row, "model", "the name of a stage that makes a model");
      for (const auto& [other, node] : rows_)
        if (other == model)
          source_.refuse(row, "model", model + " has a row already", "remove one");
      rows_.emplace_back(model, row);
    }
  }

  /// The stage that measures a model of the table comes right after the one that makes it.
  void add_evaluation(size_t model) {
    for (const auto& [name, row] : rows_) {
      if (name != recipe_.stages[model].name) continue;
      Stage stage;
      stage.name = "eval-" + name;
      claim(stage.name, row);
      stage.out = recipe_.dir + "/eval/" + name + ".json";
      stage.ranks = ranks_of(evaluate_);
      read_command(
          evaluate_, "cohort eval " + text(evaluate_, "options", "options of cohort eval"), stage);
      const std::vector<std::string> own{"--model",
                                         recipe_.stages[model].out,
                                         "--out",
                                         stage.out,
                                         "--save",
                                         completions_of(stage)};
      stage.command.insert(stage.command.begin() + 2, own.begin(), own.end());
      stage.after.push_back(model);
      push(std::move(stage));
    }
  }

  void finish_table() {
    for (const auto& [name, row] : rows_) {
      const auto model = stage_of_.find(name);
      if (model == stage_of_.end() || !stage_of_.contains("eval-" + name))
        source_.refuse(
            row, "model", core::quoted(name) + " is no stage", "want the name of one above");
      recipe_.table.push_back({text_or(row, "label", name),
                               text_or(row, "about", ""),
                               model->second,
                               stage_of_["eval-" + name]});
    }
  }

  core::Source source_;
  std::vector<std::string> overrides_;
  Recipe recipe_;
  std::map<std::string, std::string> names_;  ///< What ${...} may hold.
  std::set<std::string> settings_;
  std::map<std::string, size_t> stage_of_;
  YAML::Node evaluate_;
  std::vector<std::pair<std::string, YAML::Node>> rows_;
};

}  // namespace

size_t Recipe::stage(const std::string& name) const {
  std::vector<std::string> known;
  for (size_t index = 0; index < stages.size(); ++index) {
    if (stages[index].name == name) return index;
    known.push_back(stages[index].name);
  }
  throw InputError(
      fmt::format("{} has no stage '{}'; there are {}", file, name, fmt::join(known, ", ")));
}

Recipe load_recipe(const std::string& file, const std::vector<std::string>& overrides) {
  return Reader(file, overrides).read();
}

std::string completions_of(const Stage& evaluation) {
  return fs::path(evaluation.out).replace_extension(".jsonl").string();
}

}  // namespace cohort::cli
