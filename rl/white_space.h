// White space as Python's str.isspace and re's \s have it, which the harness's rules are written
// in.
#pragma once
#include <cstdint>
#include <string_view>

namespace cohort::rl {

/// Bytes of the white space character at `at` of a UTF-8 text; 0 when there is none.
size_t white_space_at(std::string_view text, size_t at);

/// Where the white space begins that ends the text; its size when none does.
size_t trailing_white_space(std::string_view text);

/// len(re.split(r"\s+", text)): one more than there are runs of white space.
int64_t count_words(std::string_view text);

}  // namespace cohort::rl
