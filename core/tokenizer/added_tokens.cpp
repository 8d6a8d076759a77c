#include "core/tokenizer/added_tokens.h"

#include <algorithm>

#include "core/tokenizer/unicode.h"

namespace cohort::core {

AddedTokens::AddedTokens(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  std::sort(tokens_.begin(), tokens_.end(), [](const AddedToken& a, const AddedToken& b) {
    return a.content < b.content;
  });
  first_bytes_.fill(false);
  for (const AddedToken& token : tokens_)
    first_bytes_[static_cast<unsigned char>(token.content[0])] = true;
}

const AddedToken* AddedTokens::find(std::string_view text, size_t& from) const {
  if (tokens_.empty()) return nullptr;
  for (; from < text.size(); ++from)
    if (first_bytes_[static_cast<unsigned char>(text[from])])
      if (const AddedToken* token = longest_at(text.substr(from))) return token;
  return nullptr;
}

// Narrows the sorted tokens byte by byte to those that begin as the text does.
const AddedToken* AddedTokens::longest_at(std::string_view text) const {
  const AddedToken* longest = nullptr;
  auto low = tokens_.begin(), high = tokens_.end();
  for (size_t depth = 0; depth < text.size() && low != high; ++depth) {
    const unsigned char byte = static_cast<unsigned char>(text[depth]);
    const auto at_depth = [depth](const AddedToken& token) {  // -1: the token ends before it
      return depth < token.content.size() ? static_cast<unsigned char>(token.content[depth]) : -1;
    };
    low =
        std::partition_point(low, high, [&](const auto& token) { return at_depth(token) < byte; });
    high =
        std::partition_point(low, high, [&](const auto& token) { return at_depth(token) <= byte; });
    if (low != high && low->content.size() == depth + 1) longest = &*low;
  }
  return longest;
}

bool AddedTokens::reach(
    const AddedToken& token, std::string_view text, size_t done, size_t& begin, size_t& end) {
  if (token.single_word) {
    if (begin > 0 && is_word_character(utf8_before(text, begin))) return false;
    if (end < text.size() && is_word_character(utf8_at(text, end).code_point)) return false;
  }
  if (token.lstrip) {
    std::string space;
    while (begin > done) {
      const uint32_t before = utf8_before(text, begin);
      if (!is_white_space(before)) break;
      space.clear();
      append_utf8(space, before);
      begin -= space.size();
    }
  }
  if (token.rstrip) {
    while (end < text.size()) {
      const Utf8Step step = utf8_at(text, end);
      if (!step.valid || !is_white_space(step.code_point)) break;
      end += step.length;
    }
  }
  return true;
}

}  // namespace cohort::core
