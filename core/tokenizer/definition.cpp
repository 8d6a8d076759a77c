#include "core/tokenizer/definition.h"

#include <algorithm>
#include <unordered_map>

#include "core/tokenizer/json_field.h"

namespace cohort::core {
namespace {

using nlohmann::json;
using Ids = std::unordered_map<std::string_view, int32_t>;

constexpr int64_t kMaxId = int64_t{1} << 30;
constexpr int kMaxDepth = 64;

/// What JsonField and the writer recurse into stays shallow.
void check_depth(std::string_view text, const std::string& name) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
      continue;
    }
    if (c == '"') in_string = true;
    if (c == '[' || c == '{') ++depth;
    if (c == ']' || c == '}') --depth;
    COHORT_CHECK_INPUT(
        depth <= kMaxDepth, "{}: nested deeper than {} levels, no tokenizer is", name, kMaxDepth);
  }
}

json parse_json(std::string_view text, const std::string& name) {
  check_depth(text, name);
  try {
    return json::parse(text.begin(), text.end());
  } catch (const json::parse_error& error) {
    const size_t byte = std::min<size_t>(error.byte, text.size());
    throw InputError(fmt::format("{}: line {}: not valid JSON (byte {} of {})",
                                 name,
                                 1 + std::count(text.begin(), text.begin() + byte, '\n'),
                                 byte,
                                 text.size()));
  } catch (const json::out_of_range&) {
    throw InputError(fmt::format("{}: not valid JSON: a number is out of range", name));
  }
}

/// A token in a message: quoted, with what is not printable escaped, and not too long.
std::string shown(std::string_view token) {
  return json(std::string(token)).dump(-1, ' ', true, json::error_handler_t::replace).substr(0, 80);
}

void read_vocabulary(const JsonField& field, TokenizerDefinition& out) {
  const json& entries = field.object().value();
  const size_t count = entries.size();
  std::vector<const std::string*> by_id(count);
  for (const auto& [token, id] : entries.items()) {
    const bool fits = id.is_number_unsigned() && id.get<uint64_t>() < count;
    COHORT_CHECK_INPUT(
        fits,
        "{}: id of {} is {}: ids should be 0 to {} without gaps, one for each of the {} tokens",
        field.where(),
        shown(token),
        id.is_number() ? id.dump() : id.type_name(),
        count - 1,
        count);
    const std::string*& place = by_id[id.get<size_t>()];
    COHORT_CHECK_INPUT(!place,
                       "{}: {} and {} have the same id {}",
                       field.where(),
                       shown(*place),
                       shown(token),
                       id.get<size_t>());
    place = &token;
  }
  for (const std::string* token : by_id) out.vocabulary.push_back(*token);
}

void read_merges(const JsonField& field, const Ids& ids, TokenizerDefinition& out) {
  const json& entries = field.array().value();
  out.merges.reserve(entries.size());
  std::string result;
  for (size_t i = 0; i < entries.size(); ++i) {
    const json& entry = entries[i];
    std::string_view left, right;
    if (entry.is_string()) {
      const std::string_view both = entry.get_ref<const std::string&>();
      if (both.substr(0, 8) == "#version") continue;
      const size_t space = both.find(' ');
      COHORT_CHECK_INPUT(space != both.npos && both.find(' ', space + 1) == both.npos,
                         "{}[{}]: {} should be two tokens with one space between them",
                         field.where(),
                         i,
                         shown(both));
      left = both.substr(0, space);
      right = both.substr(space + 1);
    } else {
      COHORT_CHECK_INPUT(
          entry.is_array() && entry.size() == 2 && entry[0].is_string() && entry[1].is_string(),
          "{}[{}]: should be \"a b\" or [\"a\", \"b\"]",
          field.where(),
          i);
      left = entry[0].get_ref<const std::string&>();
      right = entry[1].get_ref<const std::string&>();
    }
    const auto id_of = [&](std::string_view token) {
      const auto found = ids.find(token);
      COHORT_CHECK_INPUT(
          found != ids.end(), "{}[{}]: {} is not in model.vocab", field.where(), i, shown(token));
      return found->second;
    };
    result.assign(left).append(right);
    out.merges.push_back({id_of(left), id_of(right), id_of(result)});
  }
}

void read_model(const JsonField& field, TokenizerDefinition& out) {
  const std::string type = field.text_or("type", "BPE");  // GPT-2's own file does not name it
  COHORT_CHECK_INPUT(type == "BPE",
                     "{}.type: {} is not supported: it should be BPE",
                     field.where(),
                     field["type"].shown());
  if (field.has("dropout")) {
    const JsonField dropout = field["dropout"];
    COHORT_CHECK_INPUT(
        dropout.value().is_number() && dropout.value().get<double>() == 0,
        "{}: is not supported: it should be null (the same text always gives the same ids)",
        dropout.where());
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
    COHORT_CHECK_INPUT(
        field.text_or(key, "").empty(),
        "{}.{}: is not supported: it should be null or empty, as byte-level BPE has it",
        field.where(),
        key);
  out.ignore_merges = field.flag_or("ignore_merges", false);
  // Every byte is a token, so these have nothing to act on: checked, kept, without effect.
  field.flag_or("byte_fallback", false);
  field.flag_or("fuse_unk", false);
  field.text_or("unk_token", "");
  read_vocabulary(field["vocab"], out);
  Ids ids;
  ids.reserve(out.vocabulary.size());
  for (size_t id = 0; id < out.vocabulary.size(); ++id)
    ids.emplace(out.vocabulary[id], static_cast<int32_t>(id));
  read_merges(field["merges"], ids, out);
  for (const auto& [key, value] : field.value().items())
    if (key != "vocab" && key != "merges") out.model[key] = value;
}

AddedToken read_added_token(const JsonField& field) {
  AddedToken token;
  token.id = static_cast<int32_t>(field["id"].below(kMaxId));
  token.content = field["content"].text();
  COHORT_CHECK_INPUT(!token.content.empty(), "{}.content: is empty", field.where());
  token.single_word = field["single_word"].flag();
  token.lstrip = field["lstrip"].flag();
  token.rstrip = field["rstrip"].flag();
  token.normalized = field["normalized"].flag();
  token.special = field["special"].flag();
  return token;
}

void read_added_tokens(const JsonField& field, TokenizerDefinition& out) {
  std::unordered_map<std::string, int32_t> known;
  for (size_t id = 0; id < out.vocabulary.size(); ++id)
    known.emplace(out.vocabulary[id], static_cast<int32_t>(id));
  const int32_t num_model = static_cast<int32_t>(out.vocabulary.size());
  for (size_t i = 0; i < field.array().size(); ++i) {
    const JsonField entry = field[i];
    AddedToken token = read_added_token(entry);
    const auto found = known.find(token.content);
    if (found != known.end()) {
      COHORT_CHECK_INPUT(found->second == token.id,
                         "{}: {} has id {} here and {} before",
                         entry.where(),
                         shown(token.content),
                         token.id,
                         found->second);
    } else {
      COHORT_CHECK_INPUT(token.id >= num_model,
                         "{}: id {} is {} in model.vocab",
                         entry.where(),
                         token.id,
                         shown(out.vocabulary[token.id]));
      known.emplace(token.content, token.id);
    }
    out.added.push_back(std::move(token));
  }
  std::stable_sort(
      out.added.begin(), out.added.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
  int32_t next = num_model;
  for (size_t i = 0; i < out.added.size(); ++i) {
    const AddedToken& token = out.added[i];
    COHORT_CHECK_INPUT(i == 0 || out.added[i - 1].id != token.id,
                       "{}: id {} is given twice (to {} and {})",
                       field.where(),
                       token.id,
                       shown(out.added[i - 1].content),
                       shown(token.content));
    if (token.id < num_model) continue;
    COHORT_CHECK_INPUT(token.id == next,
                       "{}: no token has id {}, but {} has id {}: ids should have no gaps",
                       field.where(),
                       next,
                       shown(token.content),
                       token.id);
    ++next;
  }
}

bool read_normalizer(const JsonField& field) {
  if (field.is_null()) return false;
  const std::string type = field.type();
  if (type == "NFC") return true;
  COHORT_CHECK_INPUT(type == "Sequence",
                     "{}.type: {} is not supported: NFC is, or null",
                     field.where(),
                     field["type"].shown());
  const JsonField list = field["normalizers"].array();
  bool is_nfc = false;
  for (size_t i = 0; i < list.size(); ++i) is_nfc |= read_normalizer(list[i]);
  return is_nfc;
}

void check_decoder(const JsonField& field) {
  COHORT_CHECK_INPUT(!field.is_null() && field.type() == "ByteLevel",
                     "{}: {} is not supported: it should be ByteLevel",
                     field.where(),
                     field.is_null() ? "null" : field["type"].shown());
}

void append_token(std::string& out, const AddedToken& token) {
  const auto flag = [](bool value) { return value ? "true" : "false"; };
  out += fmt::format(
      "    {{\n      \"id\": {},\n      \"content\": {},\n      \"single_word\": {},\n      "
      "\"lstrip\": {},\n"
      "      \"rstrip\": {},\n      \"normalized\": {},\n      \"special\": {}\n    }}",
      token.id,
      json(token.content).dump(),
      flag(token.single_word),
      flag(token.lstrip),
      flag(token.rstrip),
      flag(token.normalized),
      flag(token.special));
}

/// `value` indented as the value of a key that stands at `indent`.
std::string nested(const json& value, int indent) {
  std::string text = value.dump(2);
  for (size_t at = 0; (at = text.find('\n', at)) != text.npos; at += 1 + indent)
    text.insert(at + 1, indent, ' ');
  return text;
}

}  // namespace

TokenizerDefinition read_definition(std::string_view text, const std::string& name) {
  const json parsed = parse_json(text, name);
  const JsonField root(parsed, name);
  root.object();
  TokenizerDefinition out;
  out.name = name;
  read_model(root["model"], out);
  if (root.has("added_tokens")) read_added_tokens(root["added_tokens"], out);
  if (root.has("normalizer")) out.is_nfc = read_normalizer(root["normalizer"]);
  check_decoder(root["decoder"]);
  root["pre_tokenizer"];
  for (const auto& [key, value] : parsed.items())
    if (key != "model" && key != "added_tokens") out.header[key] = value;
  return out;
}

// By hand rather than through a json object: that would sort keys and, in its ordered form, look
// each of 100 000 tokens up in a list.
std::string write_definition(const TokenizerDefinition& definition) {
  std::string out = "{\n";
  json header = definition.header;
  const auto put_header = [&](const char* key, json otherwise) {
    out += fmt::format("  \"{}\": {},\n", key, nested(header.value(key, std::move(otherwise)), 2));
    header.erase(key);
  };
  put_header("version", "1.0");
  put_header("truncation", nullptr);
  put_header("padding", nullptr);
  out += "  \"added_tokens\": [";
  for (size_t i = 0; i < definition.added.size(); ++i) {
    out += i ? ",\n" : "\n";
    append_token(out, definition.added[i]);
  }
  out += definition.added.empty() ? "],\n" : "\n  ],\n";
  for (const char* key : {"normalizer", "pre_tokenizer", "post_processor", "decoder"})
    put_header(key, nullptr);
  for (const auto& [key, value] : header.items())
    out += fmt::format("  {}: {},\n", json(key).dump(), nested(value, 2));
  out += "  \"model\": {\n    \"type\": \"BPE\",\n";
  for (const auto& [key, value] : definition.model.items())
    if (key != "type") out += fmt::format("    {}: {},\n", json(key).dump(), nested(value, 4));
  out += "    \"vocab\": {";
  for (size_t id = 0; id < definition.vocabulary.size(); ++id)
    out +=
        fmt::format("{}\n      {}: {}", id ? "," : "", json(definition.vocabulary[id]).dump(), id);
  out += "\n    },\n    \"merges\": [";
  for (size_t i = 0; i < definition.merges.size(); ++i) {
    const auto& [left, right, result] = definition.merges[i];
    out += fmt::format("{}\n      [\n        {},\n        {}\n      ]",
                       i ? "," : "",
                       json(definition.vocabulary[left]).dump(),
                       json(definition.vocabulary[right]).dump());
  }
  out += definition.merges.empty() ? "]\n  }\n}\n" : "\n    ]\n  }\n}\n";
  return out;
}

}  // namespace cohort::core
