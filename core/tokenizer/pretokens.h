// The way from any bytes to pre-tokens, shared by encode and training.
#pragma once
#include <string>
#include <string_view>

#include "core/tokenizer/unicode.h"

namespace cohort::core {

/// Hands the well-formed UTF-8 parts of `text` to on_text and what lies between them to on_broken,
/// in order.
template <typename OnText, typename OnBroken>
void split_at_broken_utf8(std::string_view text, OnText&& on_text, OnBroken&& on_broken) {
  while (!text.empty()) {
    const size_t valid = utf8_prefix(text);
    if (valid > 0) on_text(text.substr(0, valid));
    size_t end = valid;
    while (end < text.size()) {
      const Utf8Step step = utf8_at(text, end);
      if (step.valid) break;
      end += step.length;
    }
    if (end > valid) on_broken(text.substr(valid, end - valid));
    text.remove_prefix(end);
  }
}

/// Hands `text`, valid UTF-8, to sink in its normal form.
template <typename Sink>
void with_nfc(bool is_nfc, std::string_view text, Sink&& sink) {
  if (is_nfc && !is_surely_nfc(text)) {
    const std::string normal = nfc(text);
    sink(std::string_view(normal));
  } else {
    sink(text);
  }
}

}  // namespace cohort::core
