#include "core/tokenizer/pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <new>

#include "core/base/error.h"
#include "core/tokenizer/unicode.h"

namespace cohort::core {
namespace {

constexpr std::string_view kSpace =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view kNotSpace =
    R"(\x{0}-\x{8}\x{e}-\x{1f}\x{21}-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff}\x{200b}-\x{2027}\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{10ffff})";
constexpr std::string_view kWord =
    R"(\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{24b6}-\x{24e9}\x{1f130}-\x{1f149}\x{1f150}-\x{1f169}\x{1f170}-\x{1f189})";

bool is_hex(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}
bool is_letter_or_digit(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/// One pass over the pattern, left to right.
class Translation {
 public:
  Translation(std::string_view pattern, const std::string& where) : in_(pattern), where_(where) {}

  std::string run() {
    while (at_ < in_.size()) {
      const char c = in_[at_];
      if (c == '\\') {
        escape();
      } else if (in_set_) {
        set_character(c);
      } else if (c == '[') {
        open_set();
      } else if (c == '(') {
        group();
      } else if (c == '{') {
        interval();
      } else {
        take(1);
      }
    }
    return std::move(out_);
  }

 private:
  [[noreturn]] void refuse(std::string_view construct) const {
    throw InputError(fmt::format(
        "{}: character {}: '{}' has no counterpart here; rewrite the pattern without it",
        where_,
        at_ + 1,
        construct));
  }
  bool follows(std::string_view what) const { return in_.substr(at_, what.size()) == what; }
  void take(size_t count) {
    out_.append(in_.substr(at_, count));
    at_ += count;
  }
  /// Puts `set` for an escape of `length` characters, in brackets unless it stands in a set
  /// already.
  void put_set(std::string_view set, size_t length, bool negated = false) {
    at_ += length;
    if (!in_set_) {
      out_.append(negated ? "[^" : "[").append(set).append("]");
      return;
    }
    out_.append(set);
    if (follows("-")) {  // a '-' after \s is itself, not a range from the last character of the set
      out_.append("\\-");
      ++at_;
    }
  }

  void escape() {
    if (at_ + 1 >= in_.size()) refuse("\\ at the end");
    const char c = in_[at_ + 1];
    switch (c) {
      case 's':
        return put_set(kSpace, 2);
      case 'S':
        return in_set_ ? put_set(kNotSpace, 2) : put_set(kSpace, 2, true);
      case 'd':
        return put_set("\\p{Nd}", 2);
      case 'D':
        return put_set("\\P{Nd}", 2);
      case 'h':
        return put_set("0-9a-fA-F", 2);
      case 'w':
        return put_set(kWord, 2);
      case 'W':
        if (in_set_) refuse("\\W inside []");
        return put_set(kWord, 2, true);
      case 'p':
      case 'P': {
        const size_t end = in_.find('}', at_);
        if (at_ + 2 >= in_.size() || in_[at_ + 2] != '{' || end == in_.npos)
          refuse("\\p without {}");
        return take(end + 1 - at_);
      }
      case 'v':  // vertical tab in Oniguruma, any vertical space in PCRE2
        out_ += "\\x0b";
        at_ += 2;
        return;
      case 'x':
      case 'u':
        return hexadecimal(c);
      case 'n':
      case 'r':
      case 't':
      case 'f':
      case 'a':
      case 'e':
        return take(2);
      case 'A':
      case 'z':
      case 'Z':
        if (in_set_) refuse(in_.substr(at_, 2));
        return take(2);
      default:
        if (is_letter_or_digit(c)) refuse(in_.substr(at_, 2));
        return take(1 + utf8_at(in_, at_ + 1).length);
    }
  }

  void hexadecimal(char kind) {
    if (kind == 'x' && at_ + 2 < in_.size() && in_[at_ + 2] == '{') {
      size_t end = at_ + 3;
      while (end < in_.size() && is_hex(in_[end])) ++end;
      if (end == at_ + 3 || end >= in_.size() || in_[end] != '}') refuse("\\x{ without }");
      return take(end + 1 - at_);
    }
    const size_t digits = kind == 'u' ? 4 : 2;
    const std::string_view value = in_.substr(at_ + 2, digits);
    for (char c : value)
      if (!is_hex(c)) refuse(in_.substr(at_, 2));
    // \x80 and above are single bytes to Oniguruma, and no character.
    if (value.size() != digits || (kind == 'x' && value[0] > '7')) refuse(in_.substr(at_, 2));
    out_.append("\\x{").append(value).append("}");
    at_ += 2 + digits;
  }

  void open_set() {
    in_set_ = true;
    take(1);
    if (follows("^")) take(1);
    if (follows("]")) refuse("] at the start of []");
  }
  void set_character(char c) {
    if (c == '[') refuse("[ inside []");
    if (follows("&&")) refuse("&& inside []");
    if (c == ']') in_set_ = false;
    take(1);
  }

  void group() {
    if (follows("(*")) refuse("(*");
    if (!follows("(?")) return take(1);
    for (std::string_view known : {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:", "(?-i:"})
      if (follows(known)) return take(known.size());
    if (at_ == 0 && follows("(?i)")) return take(4);  // elsewhere its reach differs
    refuse("(?");
  }

  void interval() {
    const size_t end = in_.find('}', at_);
    if (end == in_.npos) return take(1);
    const std::string_view inside = in_.substr(at_ + 1, end - at_ - 1);
    if (inside.substr(0, 1) == ",") refuse("{,");
    const char after = end + 1 < in_.size() ? in_[end + 1] : ' ';
    if (after == '+') refuse("{}+");
    if (after == '?' && inside.find(',') == inside.npos) refuse("{}?");
    take(end + 1 - at_);
  }

  std::string_view in_;
  const std::string& where_;
  std::string out_;
  size_t at_ = 0;
  bool in_set_ = false;
};

std::string message_of(int code) {
  unsigned char text[256];
  return pcre2_get_error_message(code, text, sizeof text) > 0 ? reinterpret_cast<char*>(text)
                                                              : fmt::format("error {}", code);
}

// Steps allowed to one search: a few for each byte, as a run of nothing but spaces takes, and a
// fraction of a second for a pattern that explodes.
constexpr size_t kMatchLimit = 10'000'000;
constexpr size_t kMatchLimitPerByte = 8;
constexpr size_t kMaxPatternBytes = 1 << 16;

}  // namespace

std::string to_pcre2(std::string_view pattern, const std::string& where) {
  COHORT_CHECK_INPUT(pattern.size() <= kMaxPatternBytes,
                     "{}: {} bytes are too long for a pattern (at most {})",
                     where,
                     pattern.size(),
                     kMaxPatternBytes);
  return Translation(pattern, where).run();
}

MatchScratch::MatchScratch()
    : data_(pcre2_match_data_create(1, nullptr)),
      context_(pcre2_match_context_create(nullptr)),
      stack_(pcre2_jit_stack_create(32 * 1024, 1024 * 1024, nullptr)) {
  if (!data_ || !context_) throw std::bad_alloc();
  pcre2_set_heap_limit(context_, 64 * 1024);  // KiB
  if (stack_) pcre2_jit_stack_assign(context_, nullptr, stack_);
}

MatchScratch::~MatchScratch() {
  pcre2_match_data_free(data_);
  pcre2_match_context_free(context_);
  pcre2_jit_stack_free(stack_);
}

Pattern::Pattern(std::string_view oniguruma, std::string where) : where_(std::move(where)) {
  const std::string pattern = to_pcre2(oniguruma, where_);
  const std::unique_ptr<pcre2_compile_context, void (*)(pcre2_compile_context*)> context(
      pcre2_compile_context_create(nullptr), pcre2_compile_context_free);
  if (!context) throw std::bad_alloc();
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int code = 0;
  PCRE2_SIZE offset = 0;
  code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()),
                            pattern.size(),
                            PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                            &code,
                            &offset,
                            context.get()),
              pcre2_code_free);
  COHORT_CHECK_INPUT(code_ != nullptr, "{}: bad regular expression: {}", where_, message_of(code));
  jit_ = pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE) == 0;
}

std::optional<Pattern::Match> Pattern::find(std::string_view text,
                                            size_t from,
                                            MatchScratch& scratch) const {
  pcre2_set_match_limit(
      scratch.context_,
      static_cast<uint32_t>(std::min<size_t>(kMatchLimit + kMatchLimitPerByte * text.size(), ~0u)));
  const auto subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  int code = PCRE2_ERROR_JIT_STACKLIMIT;
  if (jit_)
    code = pcre2_jit_match(code_.get(),
                           subject,
                           text.size(),
                           from,
                           PCRE2_NO_UTF_CHECK,
                           scratch.data_,
                           scratch.context_);
  if (code == PCRE2_ERROR_JIT_STACKLIMIT)  // the interpreter has the heap to work on
    code = pcre2_match(code_.get(),
                       subject,
                       text.size(),
                       from,
                       PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                       scratch.data_,
                       scratch.context_);
  if (code == PCRE2_ERROR_NOMATCH) return std::nullopt;
  COHORT_CHECK_INPUT(
      code >= 0,
      "{}: the pattern fails on a text of {} bytes ({}): it backtracks too much, simplify it",
      where_,
      text.size(),
      message_of(code));
  const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(scratch.data_);
  return Match{offsets[0], offsets[1]};
}

}  // namespace cohort::core
