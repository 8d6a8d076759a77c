// Bytes that arrive in pieces, as text that can be shown at once.
#pragma once
#include <string>
#include <string_view>

namespace cohort::cli {

/// Holds back the bytes of a character that is not whole yet; what is no UTF-8 becomes U+FFFD.
class Utf8Pieces {
 public:
  /// What can be shown now.
  std::string push(std::string_view bytes);
  /// What was held back: U+FFFD where a character was cut, else nothing.
  std::string finish();

 private:
  std::string held_;
};

}  // namespace cohort::cli
