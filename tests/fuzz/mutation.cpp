#include "tests/fuzz/mutation.h"

#include <algorithm>
#include <vector>

namespace cohort::tests {
namespace {

using nlohmann::ordered_json;

const std::string kTokens[] = {"\"",
                               "{",
                               "}",
                               "[",
                               "]",
                               ",",
                               ":",
                               "0",
                               "9",
                               "-1",
                               "1e9",
                               "1e999",
                               "null",
                               "true",
                               "\"F32\"",
                               "\\u0000",
                               "\\ud800",
                               "\xff",
                               "\xc3",
                               "\"\"",
                               "[[[[[[[[",
                               "{\"a\":",
                               "4294967296",
                               "18446744073709551615",
                               "-9223372036854775808",
                               std::string(1, '\0'),
                               std::string(300, '['),
                               "(?:a|a)*"};

/// Pointers to every value in the document, itself first.
void collect(ordered_json& value, std::vector<ordered_json*>& out) {
  out.push_back(&value);
  if (value.is_structured())
    for (auto& child : value) collect(child, out);
}

}  // namespace

void Mutation::edit(std::string& text) {
  if (text.empty()) return void(text = kTokens[draw(std::size(kTokens))]);
  const size_t at = draw(text.size());
  const std::string& token = kTokens[draw(std::size(kTokens))];
  switch (draw(8)) {
    case 0:
    case 1:
      text[at] = static_cast<char>(text[at] ^ (1 << draw(8)));
      break;
    case 2:
      text.insert(at, token);
      break;
    case 3:
      text.erase(at, draw(40) + 1);
      break;
    case 4:
      text.insert(at, text.substr(draw(text.size()), draw(60)));
      break;
    case 5:
      text.replace(at, std::min(token.size(), text.size() - at), token);
      break;
    case 6:
      text[at] = static_cast<char>(draw(256));
      break;
    default:
      if (draw(4) == 0) text.resize(at);
      break;
  }
}

ordered_json Mutation::value(const ordered_json& old) {
  switch (draw(16)) {
    case 0:
      return nullptr;
    case 1:
      return draw(2) == 0;
    case 2:
      return 0;
    case 3:
      return -1;
    case 4:
      return INT64_MAX;
    case 5:
      return UINT64_MAX;
    case 6:
      return 1e300;
    case 7:
      return "";
    case 8:
      return std::string(1 + draw(300), 'x');
    case 9:
      return ordered_json::array();
    case 10:
      return ordered_json::object();
    case 11:
      return ordered_json::array({old, old});
    case 12:
      return ordered_json{{"type", old}};
    case 13:
      return old.is_number() ? ordered_json(old.get<double>() * (draw(2) ? 2 : -0.5)) : old;
    case 14:
      return static_cast<int64_t>(draw(uint64_t{1} << draw(40)));
    default:
      if (!old.is_string()) return old;
      {
        std::string text = old;
        edit(text);
        return text;
      }
  }
}

void Mutation::edit(ordered_json& document) {
  std::vector<ordered_json*> all;
  collect(document, all);
  ordered_json& victim = *all[draw(all.size())];
  ordered_json& other = *all[draw(all.size())];
  const uint64_t kind = draw(6);
  if (kind == 0 && victim.is_object() && !victim.empty()) {
    victim.erase(std::next(victim.begin(), static_cast<std::ptrdiff_t>(draw(victim.size()))));
  } else if (kind == 1 && victim.is_array() && !victim.empty()) {
    victim.erase(draw(victim.size()));
  } else if (kind == 2 && victim.is_object() && !victim.empty()) {
    const auto entry = std::next(victim.begin(), static_cast<std::ptrdiff_t>(draw(victim.size())));
    ordered_json moved = entry.value();
    std::string key = entry.key();
    edit(key);
    victim[key] = std::move(moved);
  } else if (kind == 3) {
    const ordered_json copy = other;  // which may lie within the victim, or the victim in it
    if (copy.dump(-1, ' ', false, ordered_json::error_handler_t::replace).size() < 20000)
      victim = copy;
  } else {
    victim = value(victim);
  }
}

std::string Mutation::bytes(std::string text) {
  for (uint64_t edits = draw(4) + 1; edits > 0; --edits) edit(text);
  return text;
}

ordered_json Mutation::json(ordered_json document) {
  for (uint64_t edits = draw(4) + 1; edits > 0; --edits) edit(document);
  return document;
}

}  // namespace cohort::tests
