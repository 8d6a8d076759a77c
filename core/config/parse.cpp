#include "core/config/parse.h"

#include <utf8proc.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "core/base/error.h"
#include "core/config/hf_config.h"
#include "core/config/suggest.h"
#include "core/config/validate.h"
#include "core/config/values.h"

namespace cohort::core {
namespace {

/// One value that the user gave.
struct Entry {
  const Field* field;   ///< nullptr: model.from.
  std::string rest;     ///< What an override named below the field (0.path), else empty.
  std::string written;  ///< The key as the user spelled it.
  YAML::Node node, key_node;
  Source source;

  std::string key() const { return field ? field->key : kFromKey; }
};

std::string joined(const std::string& path, const std::string& name) {
  return path.empty() ? name : path + "." + name;
}

/// The entries of one file or override, in order; refuses unknown and repeated keys.
class Collector {
 public:
  explicit Collector(Source source) : source_(std::move(source)) {}

  void visit(const std::string& path, const YAML::Node& node, const YAML::Node& key_node) {
    const std::string canonical = canonical_key(path);
    if (!canonical.empty() && !is_section(canonical))
      return add_entry(path, canonical, node, key_node);
    if (node.IsNull() && !path.empty()) return;  // a section whose keys are all commented out
    if (!node.IsMap()) {
      if (path.empty()) refuse_root(node);
      source_.refuse(
          node, path, shown(node) + " is not what a section takes", "want keys with values");
    }
    std::set<std::string> names;
    for (const auto& pair : node) {
      if (!pair.first.IsScalar())
        source_.refuse(pair.first,
                       path.empty() ? "(top)" : path,
                       shown(pair.first) + " is no key",
                       "want a name");
      const std::string child = joined(path, pair.first.Scalar());
      if (!names.insert(child).second)
        source_.refuse(pair.first, printable(child), "stands here twice", "remove one");
      visit(child, pair.second, pair.first);
    }
  }

  std::vector<Entry> take() { return std::move(entries_); }

 private:
  static std::string printable(const std::string& key) {
    const std::string shown_key = quoted(key);
    return shown_key == "'" + key + "'" ? key : shown_key;
  }

  [[noreturn]] void refuse_root(const YAML::Node& node) const {
    throw InputError(
        fmt::format("{}: {}; want a map of sections such as run:, model:, data:, train:",
                    source_.name,
                    node.IsNull() ? "holds no settings" : "is " + shown(node)));
  }

  void add_entry(const std::string& path,
                 const std::string& canonical,
                 const YAML::Node& node,
                 const YAML::Node& key_node) {
    Entry entry{find_field(canonical), "", path, node, key_node, source_};
    entry.source.key_line = key_node.Mark().line;
    if (!source_.has_lines && !entry.field) find_part(canonical, entry);
    if (!entry.field && canonical != kFromKey)
      source_.refuse(key_node, printable(path), "unknown key", suggest_key(canonical));
    if (!seen_.insert(canonical).second)
      source_.refuse(key_node, path, "is given twice, as " + canonical + " too", "remove one");
    entries_.push_back(std::move(entry));
  }

  /// An override may name a part of a field: data.train.0.path, rl.task.count.
  static void find_part(const std::string& canonical, Entry& entry) {
    for (const Field& field : fields()) {
      if (!canonical.starts_with(field.key + ".") || !has_parts(field)) continue;
      entry.field = &field;
      entry.rest = canonical.substr(field.key.size() + 1);
    }
  }

  Source source_;
  std::vector<Entry> entries_;
  std::set<std::string> seen_;
};

/// yaml-cpp replaces bytes that are not UTF-8 without a word: a path would be another one.
void check_utf8(const std::string& text, const Source& source) {
  const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data());
  const auto size = static_cast<utf8proc_ssize_t>(text.size());
  for (utf8proc_ssize_t at = 0, line = 1; at < size;) {
    utf8proc_int32_t character = 0;
    const utf8proc_ssize_t length = utf8proc_iterate(bytes + at, size - at, &character);
    COHORT_CHECK_INPUT(length > 0 && character != 0,
                       "{}{}: holds the byte 0x{:02x}, which is not text; want UTF-8",
                       source.name,
                       source.has_lines ? fmt::format(":{}", line) : "",
                       bytes[at]);
    line += character == '\n';
    at += length;
  }
}

YAML::Node load_yaml(const std::string& text, const Source& source) {
  check_utf8(text, source);
  try {
    const std::vector<YAML::Node> documents = YAML::LoadAll(text);
    COHORT_CHECK_INPUT(documents.size() <= 1,
                       "{}: holds {} YAML documents; want one (no further ---)",
                       source.name,
                       documents.size());
    return documents.empty() ? YAML::Node() : documents[0];
  } catch (const YAML::Exception& error) {
    const bool has_line = source.has_lines && error.mark.line >= 0;
    throw InputError(fmt::format("{}{}: not readable as YAML ({}); want lines of `key: value`",
                                 source.name,
                                 has_line ? fmt::format(":{}", error.mark.line + 1) : "",
                                 error.msg));
  }
}

std::vector<Entry> override_entries(const std::string& text) {
  const Source source{"override " + quoted(text), false};
  const size_t equals = text.find('=');
  COHORT_CHECK_INPUT(equals != text.npos && equals > 0,
                     "{}: is no setting; want section.key=value, as in train.steps=500",
                     source.name);
  const std::string key = text.substr(0, equals);
  const YAML::Node value = load_yaml(text.substr(equals + 1), source);
  Collector collector(source);
  collector.visit(key, value, value);
  return collector.take();
}

/// The last entry of a key, or nullptr.
const Entry* last_entry(const std::vector<Entry>& entries, const std::string& key) {
  for (auto entry = entries.rbegin(); entry != entries.rend(); ++entry)
    if (entry->key() == key) return &*entry;
  return nullptr;
}

/// `folder`, or the newest checkpoint in it when it is that of a run.
std::string model_folder(const std::string& folder) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  if (fs::exists(fs::path(folder) / "config.json", ignored)) return folder;
  std::string newest;  // names are step-00000123: the last in order is the newest
  for (const auto& entry : fs::directory_iterator(fs::path(folder) / "checkpoints", ignored))
    if (fs::exists(entry.path() / "config.json", ignored))
      newest = std::max(newest, entry.path().string());
  return newest.empty() ? folder : newest;
}

/// The entry that names the config.json to start from: model.from, else run.model unless null.
const Entry* model_source(const std::vector<Entry>& entries) {
  if (const Entry* from = last_entry(entries, kFromKey)) return from;
  const Entry* weights = last_entry(entries, "run.model");
  return weights && !weights->node.IsNull() ? weights : nullptr;
}

/// The model before its own keys are read: a config.json's, or the defaults of the model_type.
void start_model(const std::vector<Entry>& entries, Config& config, Origins& origins) {
  if (const Entry* from = model_source(entries)) {
    if (!from->node.IsScalar() || from->node.Scalar().empty())
      from->source.refuse(from->node,
                          from->written,
                          shown(from->node) + " is no path",
                          from->field ? "want a model's folder" : "want a config.json");
    const std::string place = from->source.at(from->key_node) + ": " + from->written;
    try {
      const std::string& path = from->node.Scalar();
      config.model = read_hf_config(from->field ? model_folder(path) : path);
    } catch (const InputError& error) {
      throw InputError(fmt::format("{}: {}", place, error.what()));
    }
    origins.record(kFromKey, place, !from->source.has_lines);
    return;
  }
  if (const Entry* type = last_entry(entries, "model.model_type"))
    assign(*type->field, "", type->node, type->source, type->written, config);
  fix_model_type(config.model);
}

Config resolve(const std::vector<Entry>& entries, Origins& origins) {
  Config config;
  start_model(entries, config, origins);
  for (const Entry& entry : entries) {
    if (entry.field)
      assign(*entry.field, entry.rest, entry.node, entry.source, entry.written, config);
    origins.record(entry.key(),
                   entry.source.at(entry.key_node) + ": " + entry.written,
                   !entry.source.has_lines);
  }
  ModelConfig& model = config.model;
  const bool follows_heads = model.uses_mla() || !origins.given(kFromKey);
  if (follows_heads && !origins.given("model.num_key_value_heads"))
    model.num_key_value_heads = model.num_attention_heads;
  if (!origins.given("data.seq_len"))
    config.data.seq_len = std::min(config.data.seq_len, model.max_position_embeddings);
  if (config.train.epochs > 0 && !origins.given("train.steps")) config.train.steps = 0;
  return config;
}

std::string read_text(const std::string& path) {
  std::error_code ignored;
  const auto status = std::filesystem::status(path, ignored);
  COHORT_CHECK_INPUT(std::filesystem::exists(status), "{}: no such file; want a YAML config", path);
  COHORT_CHECK_INPUT(
      !std::filesystem::is_directory(status), "{}: is a folder; want a YAML config file", path);
  std::ifstream file(path, std::ios::binary);
  COHORT_CHECK_INPUT(file.good(), "{}: cannot be opened; want a readable YAML config", path);
  constexpr std::streamsize kLargest = 1 << 20;
  std::string text(kLargest + 1, '\0');
  file.read(text.data(), kLargest + 1);
  COHORT_CHECK_INPUT(file.gcount() <= kLargest, "{}: is over 1 MiB; want a YAML config", path);
  text.resize(file.gcount());
  return text;
}

}  // namespace

Config parse_config(const std::string& path, const std::vector<std::string>& overrides) {
  return parse_config_text(read_text(path), path, overrides);
}

Config parse_config_text(const std::string& text,
                         const std::string& name,
                         const std::vector<std::string>& overrides) {
  const Source source{name, true};
  Collector collector(source);
  const YAML::Node root = load_yaml(text, source);
  collector.visit("", root, root);
  std::vector<Entry> entries = collector.take();
  for (const std::string& text_of_override : overrides)
    for (Entry& entry : override_entries(text_of_override)) entries.push_back(std::move(entry));
  Origins origins(name);
  const Config config = resolve(entries, origins);
  validate(config, origins);
  return config;
}

}  // namespace cohort::core
