// Tokens that stand outside the BPE vocabulary's reach: <|begin|>, <think> and the like.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace cohort::core {

struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool single_word = false;  ///< Only where no word character touches it.
  bool lstrip = false;       ///< Takes the white space before it.
  bool rstrip = false;       ///< Takes the white space after it.
  bool normalized = false;   ///< Looked for in the normalised text, not in the text as given.
  bool special =
      false;  ///< Dropped by decode(skip_special), not recognised by encode(special = false).
};

/// Finds added tokens in a text: at each place the longest, from left to right, as Hugging Face
/// does. Thread safe.
class AddedTokens {
 public:
  AddedTokens() { first_bytes_.fill(false); }
  explicit AddedTokens(std::vector<AddedToken> tokens);
  bool empty() const { return tokens_.empty(); }

  /// Calls on_text(string_view) for what lies between tokens and on_token(id) for each token, in
  /// the order of the text.
  template <typename OnText, typename OnToken>
  void split(std::string_view text, bool special, OnText&& on_text, OnToken&& on_token) const {
    size_t done = 0, from = 0;
    while (const AddedToken* token = find(text, from)) {
      size_t begin = from, end = from + token->content.size();
      from = end;
      if ((token->special && !special) || !reach(*token, text, done, begin, end)) continue;
      if (done < begin) on_text(text.substr(done, begin - done));
      on_token(token->id);
      done = end;
    }
    if (done < text.size()) on_text(text.substr(done));
  }

 private:
  /// The next token at or after `from`, which moves to its first byte; null at the end.
  const AddedToken* find(std::string_view text, size_t& from) const;
  const AddedToken* longest_at(std::string_view text) const;
  /// Widens [begin, end) as lstrip and rstrip say; false when single_word forbids the match.
  static bool reach(
      const AddedToken& token, std::string_view text, size_t done, size_t& begin, size_t& end);

  std::vector<AddedToken> tokens_;  // sorted by content
  std::array<bool, 256> first_bytes_;
};

}  // namespace cohort::core
