#include <utf8proc.h>

#include <algorithm>
#include <cctype>
#include <map>

#include "rl/rewards/builtin.h"
#include "rl/rewards/options.h"

namespace cohort::rl {
namespace {

struct Range {
  int32_t first, last;
  std::string_view script;
};
// Unicode blocks of the scripts that can be asked for; letters outside are of no script.
constexpr Range kRanges[] = {
    {0x0041, 0x024F, "latin"},  {0x1E00, 0x1EFF, "latin"},  {0xFF21, 0xFF5A, "latin"},
    {0x0370, 0x03FF, "greek"},  {0x1F00, 0x1FFF, "greek"},  {0x0400, 0x052F, "cyrillic"},
    {0x0590, 0x05FF, "hebrew"}, {0x0600, 0x06FF, "arabic"}, {0x0750, 0x077F, "arabic"},
    {0xFB50, 0xFDFF, "arabic"}, {0xFE70, 0xFEFF, "arabic"}, {0x0900, 0x097F, "devanagari"},
    {0x0E00, 0x0E7F, "thai"},   {0x3040, 0x30FF, "kana"},   {0x31F0, 0x31FF, "kana"},
    {0x3005, 0x3007, "han"},    {0x3400, 0x4DBF, "han"},    {0x4E00, 0x9FFF, "han"},
    {0xF900, 0xFAFF, "han"},    {0x20000, 0x323AF, "han"},  {0x1100, 0x11FF, "hangul"},
    {0xAC00, 0xD7AF, "hangul"},
};

std::string_view script_of(int32_t code_point) {
  for (const Range& range : kRanges)
    if (code_point >= range.first && code_point <= range.last) return range.script;
  return "";
}

bool is_letter(int32_t code_point) {
  switch (utf8proc_category(code_point)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return true;
    default:
      return false;
  }
}

/// End of a LaTeX command or of a tag (<think>, </answer>) that starts at `at`; `at` where none
/// does.
size_t after_markup(std::string_view text, size_t at) {
  const auto letters = [&](size_t from) {
    while (from < text.size() && std::isalpha(static_cast<unsigned char>(text[from]))) ++from;
    return from;
  };
  if (text[at] == '\\') return letters(at + 1);
  if (text[at] != '<') return at;
  const size_t start = at + 1 + (text.substr(at + 1, 1) == "/");
  const size_t end = letters(start);
  return end > start && end < text.size() && text[end] == '>' ? end + 1 : at;
}

std::map<std::string_view, int64_t> letters_by_script(std::string_view text) {
  std::map<std::string_view, int64_t> counts;
  for (size_t at = 0; at < text.size();) {
    if (const size_t after = after_markup(text, at); after > at) {
      at = after;
      continue;
    }
    int32_t code_point = -1;
    const auto bytes =
        utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + at,
                         static_cast<utf8proc_ssize_t>(std::min<size_t>(4, text.size() - at)),
                         &code_point);
    if (bytes > 0 && is_letter(code_point)) ++counts[script_of(code_point)];
    at += bytes > 0 ? static_cast<size_t>(bytes) : 1;  // bytes that are no UTF-8 are no letters
  }
  return counts;
}

class LanguageReward final : public Reward {
 public:
  explicit LanguageReward(const nlohmann::json& json) {
    Options options("reward language", json);
    script_ = options.get("script", std::string("prompt"));
    options.finish();
    const bool known = std::any_of(std::begin(kRanges), std::end(kRanges), [&](const Range& range) {
      return range.script == script_;
    });
    COHORT_CHECK_INPUT(
        known || script_ == "prompt",
        "reward language: no script {}; there are prompt, latin, han, cyrillic, greek, "
        "arabic, hebrew, devanagari, hangul, kana, thai",
        script_);
  }

  std::string name() const override { return "language"; }

  std::vector<double> score(std::span<const Completion> batch) override {
    std::vector<double> values;
    for (const Completion& completion : batch) {
      auto counts = letters_by_script(completion.text);
      int64_t letters = 0;
      for (const auto& [script, count] : counts) letters += count;
      const std::string_view wanted = wanted_script(completion);
      values.push_back(letters == 0 || wanted.empty()
                           ? 1.0
                           : static_cast<double>(counts[wanted]) / static_cast<double>(letters));
    }
    return values;
  }

 private:
  /// The script of most letters of the prompt; empty when it has none.
  std::string_view wanted_script(const Completion& completion) const {
    if (script_ != "prompt") return script_;
    std::string_view most;
    int64_t letters = 0;
    for (const auto& [script, count] : letters_by_script(completion.prompt))
      if (!script.empty() && count > letters) most = script, letters = count;
    return most;
  }

  std::string script_;
};

}  // namespace

std::unique_ptr<Reward> make_language_reward(const nlohmann::json& options) {
  return std::make_unique<LanguageReward>(options);
}

}  // namespace cohort::rl
