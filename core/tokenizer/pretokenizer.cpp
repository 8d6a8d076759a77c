#include "core/tokenizer/pretokenizer.h"

namespace cohort::core {
namespace {

using nlohmann::json;

constexpr const char* kGpt2 =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr const char* kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kDeepseek[] = {
    R"(\p{N}{1,3})",
    R"([一-龥぀-ゟ゠-ヿ]+)",
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"};

constexpr size_t kMaxStages = 32;

json split_json(const char* regex) {
  return {{"type", "Split"},
          {"pattern", {{"Regex", regex}}},
          {"behavior", "Isolated"},
          {"invert", false}};
}
json byte_level_json(bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", false},
          {"trim_offsets", true},
          {"use_regex", use_regex}};
}

}  // namespace

Pretokenizer::Pretokenizer(const JsonField& json) {
  COHORT_CHECK_INPUT(
      !json.is_null(),
      "{}: is null: Cohort reads byte-level tokenizers, it should be a ByteLevel or a "
      "Sequence that ends in one",
      json.where());
  if (json.type() != "Sequence") {
    add_byte_level(json);
    return;
  }
  const JsonField list = json["pretokenizers"].array();
  COHORT_CHECK_INPUT(list.size() > 0 && list.size() <= kMaxStages,
                     "{}: has {} entries, should have 1 to {}",
                     list.where(),
                     list.size(),
                     kMaxStages);
  for (size_t i = 0; i + 1 < list.size(); ++i) add_split(list[i]);
  add_byte_level(list[list.size() - 1]);
}

void Pretokenizer::add_split(const JsonField& json) {
  const std::string type = json.type();
  if (type == "Digits") {
    const bool individual = json["individual_digits"].flag();
    add_pattern(individual ? R"(\p{N})" : R"(\p{N}+)", json.where());
    return;
  }
  COHORT_CHECK_INPUT(
      type == "Split",
      "{}.type: {} is not supported before the last entry: Split and Digits are, and "
      "ByteLevel at the end",
      json.where(),
      json["type"].shown());
  const std::string behavior = json["behavior"].text();
  COHORT_CHECK_INPUT(behavior == "Isolated",
                     "{}.behavior: {} is not supported: only Isolated is",
                     json.where(),
                     json["behavior"].shown());
  json.flag_or("invert", false);  // an isolated gap is an isolated match
  const JsonField pattern = json["pattern"].object();
  if (pattern.has("Regex")) {
    const JsonField regex = pattern["Regex"];
    add_pattern(regex.text(), regex.where());
    return;
  }
  COHORT_CHECK_INPUT(pattern.has("String"), "{}: should hold Regex or String", pattern.where());
  const JsonField literal = pattern["String"];
  COHORT_CHECK_INPUT(!literal.text().empty(), "{}: should not be empty", literal.where());
  stages_.push_back({nullptr, literal.text()});
}

void Pretokenizer::add_byte_level(const JsonField& json) {
  const std::string type = json.type();
  COHORT_CHECK_INPUT(type == "ByteLevel",
                     "{}.type: {} is not supported here: it should be ByteLevel",
                     json.where(),
                     json["type"].shown());
  if (json["add_prefix_space"].flag()) stages_.push_back({});
  if (json.flag_or("use_regex", true)) add_pattern(kGpt2, json.where());
}

json pretokenizer_preset(const std::string& name) {
  if (name == "gpt2") return {{"normalizer", nullptr}, {"pre_tokenizer", byte_level_json(true)}};
  json list = json::array();
  if (name == "qwen2") {
    list.push_back(split_json(kQwen2));
  } else {
    COHORT_CHECK_INPUT(name == "deepseek",
                       "pretokenizer '{}' is unknown: it should be gpt2, qwen2 or deepseek",
                       name);
    for (const char* regex : kDeepseek) list.push_back(split_json(regex));
  }
  list.push_back(byte_level_json(false));
  return {{"normalizer", name == "qwen2" ? json{{"type", "NFC"}} : json(nullptr)},
          {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", list}}}};
}

}  // namespace cohort::core
