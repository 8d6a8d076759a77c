// The regular expressions of tokenizer.json, run by PCRE2. They are written for Oniguruma, which
// reads a few things differently: those are translated, or refused by name where they cannot be.
#pragma once
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

struct pcre2_real_code_8;
struct pcre2_real_match_data_8;
struct pcre2_real_match_context_8;
struct pcre2_real_jit_stack_8;

namespace cohort::core {

/// Oniguruma's pattern as one that PCRE2 (UTF, UCP, multi-line) reads in the same way: \s \S \w \d
/// are spelled out as Unicode's sets, since PCRE2 draws some of them differently from version to
/// version. Throws InputError, beginning with `where`, at a construct that the two read differently
/// and that has no translation.
std::string to_pcre2(std::string_view pattern, const std::string& where);

/// What one thread needs to run any Pattern.
class MatchScratch {
 public:
  MatchScratch();
  ~MatchScratch();
  MatchScratch(const MatchScratch&) = delete;
  MatchScratch& operator=(const MatchScratch&) = delete;

 private:
  friend class Pattern;
  pcre2_real_match_data_8* data_;
  pcre2_real_match_context_8* context_;
  pcre2_real_jit_stack_8* stack_;
};

/// A compiled pattern. Thread safe.
class Pattern {
 public:
  /// `where` (file and field) begins every message. Throws InputError on a bad pattern.
  Pattern(std::string_view oniguruma, std::string where);

  struct Match {
    size_t begin, end;
  };
  /// First match at or after `from` in valid UTF-8. Throws InputError when the pattern backtracks
  /// beyond PCRE2's limits.
  std::optional<Match> find(std::string_view text, size_t from, MatchScratch& scratch) const;

 private:
  std::shared_ptr<pcre2_real_code_8> code_;
  bool jit_;
  std::string where_;
};

}  // namespace cohort::core
