// A chat template cut into text and tokens, white space already trimmed as Jinja does with
// trim_blocks and lstrip_blocks on, which is how transformers renders.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace cohort::core::chat {

enum class Lex {
  kText,
  kBlockBegin,
  kBlockEnd,
  kOutputBegin,
  kOutputEnd,
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,
  kEnd
};

struct Token {
  Lex lex;
  int line;
  std::string text;  // of a string: its contents
};

/// The last token is kEnd. Throws InputError "NAME:LINE: ...".
std::vector<Token> tokenize(std::string_view source, const std::string& name);

/// A piece of a template for a message: one short line.
std::string shown(std::string_view text);

}  // namespace cohort::core::chat
