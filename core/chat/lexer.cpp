#include "core/chat/lexer.h"

#include <algorithm>

#include "core/base/error.h"
#include "core/chat/text.h"

namespace cohort::core::chat {
namespace {

/// "\r\n" and "\r" become "\n"; one newline at the end goes.
std::string normalized(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
      continue;
    }
    out += '\n';
    if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (c & 0x80);
}
bool is_digit(char c) { return c >= '0' && c <= '9'; }

class Lexer {
 public:
  Lexer(std::string_view source, const std::string& name)
      : source_(normalized(source)), rest_(source_), name_(name) {}

  std::vector<Token> run() {
    while (at_ < rest_.size()) text();
    tokens_.push_back({Lex::kEnd, line_, ""});
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw InputError(fmt::format("{}:{}: {}", name_, line_, what));
  }
  bool starts(std::string_view text) const { return rest_.substr(at_, text.size()) == text; }
  char peek(size_t ahead = 0) const {
    return at_ + ahead < rest_.size() ? rest_[at_ + ahead] : '\0';
  }
  void advance(size_t count) {
    count = std::min(count, rest_.size() - at_);
    line_ += static_cast<int>(std::count(rest_.begin() + at_, rest_.begin() + at_ + count, '\n'));
    at_ += count;
  }
  void skip_space() { advance(rest_.size() - at_ - strip(rest_.substr(at_), kLeft).size()); }
  void add(Lex lex, std::string text = "") { tokens_.push_back({lex, line_, std::move(text)}); }

  /// Text up to the next tag, and that tag.
  void text() {
    const bool line_starts = at_ == 0 || rest_[at_ - 1] == '\n';
    size_t end = at_;
    for (;; ++end) {
      end = rest_.find('{', end);
      if (end == rest_.npos || end + 1 >= rest_.size()) {
        end = rest_.size();
        break;
      }
      if (rest_[end + 1] == '{' || rest_[end + 1] == '%' || rest_[end + 1] == '#') break;
    }
    std::string_view text = rest_.substr(at_, end - at_);
    const char kind = end < rest_.size() ? rest_[end + 1] : '\0';
    const char sign = end + 2 < rest_.size() ? rest_[end + 2] : '\0';
    text = trimmed(text, kind, sign, line_starts);
    if (!text.empty()) add(Lex::kText, std::string(text));
    advance(end - at_);
    if (kind == '\0') return;
    advance(sign == '-' || sign == '+' ? 3 : 2);
    if (kind == '#')
      comment();
    else if (kind == '{')
      tag(Lex::kOutputBegin, Lex::kOutputEnd, "}}");
    else if (!raw())
      tag(Lex::kBlockBegin, Lex::kBlockEnd, "%}");
  }

  static std::string_view trimmed(std::string_view text, char kind, char sign, bool line_starts) {
    if (kind == '\0') return text;
    if (sign == '-') return strip(text, kRight);
    if (sign == '+' || kind == '{') return text;
    const size_t line = text.rfind('\n') + 1;  // npos + 1 is 0
    if (line == 0 && !line_starts) return text;
    return strip(text.substr(line), kLeft).empty() ? text.substr(0, line) : text;
  }

  /// After the end of a block or a comment, whose sign is `sign`.
  void trim_after(char sign) {
    if (sign == '-')
      skip_space();
    else if (sign != '+' && peek() == '\n')
      advance(1);
  }

  void comment() {
    const size_t end = rest_.find("#}", at_);
    if (end == rest_.npos) fail("a comment has no #} to end it");
    const char sign = end > at_ ? rest_[end - 1] : '\0';
    advance(end + 2 - at_);
    trim_after(sign);
  }

  /// Whether a {% raw %} stood here, which is then read to its end.
  bool raw() {
    const size_t start = at_;
    const int start_line = line_;
    skip_space();
    const auto back = [&] {
      at_ = start;
      line_ = start_line;
      return false;
    };
    if (!starts("raw")) return back();
    advance(3);
    skip_space();
    if (starts("-%}")) {
      advance(3);
      skip_space();
    } else if (starts("%}")) {
      advance(2);
    } else {
      return back();
    }
    raw_text();
    return true;
  }

  void raw_text() {
    const bool line_starts = at_ == 0 || rest_[at_ - 1] == '\n';
    for (size_t begin = at_; (begin = rest_.find("{%", begin)) != rest_.npos; begin += 2) {
      size_t end = begin + 2;
      const char sign = end < rest_.size() ? rest_[end] : '\0';
      if (sign == '-' || sign == '+') ++end;
      const auto skip = [&] { end = rest_.size() - strip(rest_.substr(end), kLeft).size(); };
      skip();
      if (rest_.substr(end, 6) != "endraw") continue;
      end += 6;
      skip();
      const char end_sign = end < rest_.size() ? rest_[end] : '\0';
      if (end_sign == '-' || end_sign == '+') ++end;
      if (rest_.substr(end, 2) != "%}") continue;
      const std::string_view text = trimmed(rest_.substr(at_, begin - at_), '%', sign, line_starts);
      if (!text.empty()) add(Lex::kText, std::string(text));
      advance(end + 2 - at_);
      trim_after(end_sign);
      return;
    }
    fail("{% raw %} has no {% endraw %}");
  }

  void tag(Lex begin, Lex end, std::string_view closing) {
    add(begin);
    std::string open;  // brackets not closed yet
    for (;;) {
      skip_space();
      if (at_ >= rest_.size()) fail(fmt::format("a tag has no {} to end it", closing));
      const bool block = end == Lex::kBlockEnd;
      const char sign = peek();
      const bool signs =
          (sign == '-' || (sign == '+' && block)) && rest_.substr(at_ + 1, 2) == closing;
      if (open.empty() && (signs || starts(closing))) {
        add(end);
        advance(signs ? 3 : 2);
        if (block)
          trim_after(signs ? sign : '\0');
        else if (signs)
          skip_space();
        return;
      }
      token(open);
    }
  }

  void token(std::string& open) {
    const char c = peek();
    if (is_letter(c)) {
      size_t end = at_;
      while (end < rest_.size() && (is_letter(rest_[end]) || is_digit(rest_[end]))) ++end;
      add(Lex::kName, std::string(rest_.substr(at_, end - at_)));
      advance(end - at_);
    } else if (is_digit(c)) {
      number();
    } else if (c == '"' || c == '\'') {
      quoted(c);
    } else {
      operation(open);
    }
  }

  void digits(std::string& out) {
    for (; is_digit(peek()) || (peek() == '_' && is_digit(peek(1))); advance(1))
      if (peek() != '_') out += peek();
  }

  void number() {
    std::string text;
    digits(text);
    const bool after_dot =
        !tokens_.empty() && tokens_.back().lex == Lex::kOperator && tokens_.back().text == ".";
    bool is_float = false;
    if (!after_dot && peek() == '.' && is_digit(peek(1))) {
      is_float = true;
      text += '.';
      advance(1);
      digits(text);
    }
    const size_t sign = peek(1) == '+' || peek(1) == '-';
    if (!after_dot && (peek() == 'e' || peek() == 'E') && is_digit(peek(1 + sign))) {
      is_float = true;
      text += rest_.substr(at_, 1 + sign);
      advance(1 + sign);
      digits(text);
    }
    if (is_letter(peek()))
      fail(fmt::format("`{}{}`: only decimal numbers are known", shown(text), peek()));
    if (!is_float && text.size() > 1 && text[0] == '0' && text.find_first_not_of('0') != text.npos)
      fail(fmt::format("`{}`: an integer begins with 0", shown(text)));
    add(is_float ? Lex::kFloat : Lex::kInteger, std::move(text));
  }

  void append_point(std::string& out, uint32_t point) {
    if (point > 0x10FFFF || (point >= 0xD800 && point < 0xE000))
      fail("a string escapes what is no character");
    if (point < 0x80) {
      out += static_cast<char>(point);
    } else if (point < 0x800) {
      out += static_cast<char>(0xC0 | point >> 6);
      out += static_cast<char>(0x80 | (point & 0x3F));
    } else if (point < 0x10000) {
      out += static_cast<char>(0xE0 | point >> 12);
      out += static_cast<char>(0x80 | (point >> 6 & 0x3F));
      out += static_cast<char>(0x80 | (point & 0x3F));
    } else {
      out += static_cast<char>(0xF0 | point >> 18);
      out += static_cast<char>(0x80 | (point >> 12 & 0x3F));
      out += static_cast<char>(0x80 | (point >> 6 & 0x3F));
      out += static_cast<char>(0x80 | (point & 0x3F));
    }
  }

  /// What stands after a backslash.
  void escape(std::string& out) {
    constexpr std::string_view kLetters = "abfnrtv\\'\"", kMeanings = "\a\b\f\n\r\t\v\\'\"";
    const char c = peek();
    const size_t known = kLetters.find(c);
    if (c == '\0') fail("a string has no end");
    if (known != kLetters.npos) {
      out += kMeanings[known];
      advance(1);
    } else if (c == 'x' || c == 'u' || c == 'U') {
      const size_t count = c == 'x' ? 2 : c == 'u' ? 4 : 8;
      const std::string hex(rest_.substr(at_ + 1, count));
      if (hex.size() < count || hex.find_first_not_of("0123456789abcdefABCDEF") != hex.npos)
        fail(fmt::format("\\{} wants {} hexadecimal digits", c, count));
      append_point(out, static_cast<uint32_t>(std::stoul(hex, nullptr, 16)));
      advance(1 + count);
    } else if (c >= '0' && c <= '7') {
      uint32_t point = 0;
      for (int i = 0; i < 3 && peek() >= '0' && peek() <= '7'; ++i, advance(1))
        point = point * 8 + (peek() - '0');
      append_point(out, point);
    } else if (c == 'N') {
      fail("\\N names of characters are not known");
    } else if (c == '\n') {
      advance(1);
    } else {
      out += '\\';
    }
  }

  void quoted(char quote) {
    std::string out;
    const int start_line = line_;
    advance(1);
    for (;;) {
      if (at_ >= rest_.size()) fail("a string has no end");
      const char c = peek();
      advance(1);
      if (c == quote) break;
      if (c == '\\')
        escape(out);
      else
        out += c;
    }
    tokens_.push_back({Lex::kString, start_line, std::move(out)});
  }

  void operation(std::string& open) {
    for (const char* two : {"//", "**", "==", "!=", ">=", "<="})
      if (starts(two)) {
        add(Lex::kOperator, two);
        advance(2);
        return;
      }
    const char c = peek();
    if (std::string_view("+-*/%~[](){}<>=.:|,").find(c) == std::string_view::npos)
      fail(fmt::format("`{}` is not known", shown(rest_.substr(at_, 1))));
    if (c == '(' || c == '[' || c == '{') open += c;
    if (c == ')' || c == ']' || c == '}') {
      const char wanted = c == ')' ? '(' : c == ']' ? '[' : '{';
      if (open.empty() || open.back() != wanted) fail(fmt::format("`{}` closes nothing", c));
      open.pop_back();
    }
    add(Lex::kOperator, std::string(1, c));
    advance(1);
  }

  std::string source_;
  std::string_view rest_;
  const std::string& name_;
  size_t at_ = 0;
  int line_ = 1;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source, const std::string& name) {
  return Lexer(source, name).run();
}

std::string shown(std::string_view text) {
  std::string out;
  for (const std::string_view one : characters(text.substr(0, 200))) {
    if (out.size() >= 60) return out + "...";
    if (is_printable(code_point(one)))
      out += one;
    else
      out += one == "\n" ? "\\n" : "?";
  }
  return out;
}

}  // namespace cohort::core::chat
