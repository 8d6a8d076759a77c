// Python's str methods on UTF-8. A byte that is no UTF-8 counts as a character of its own.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace cohort::core::chat {

std::vector<std::string_view> characters(std::string_view text);
int64_t character_count(std::string_view text);
int32_t code_point(std::string_view character);
bool is_space(int32_t code_point);
bool is_printable(int32_t code_point);

enum Sides { kLeft = 1, kRight = 2, kBoth = 3 };
std::string_view strip(std::string_view text, Sides sides);
/// Strips the characters that are in `set`.
std::string_view strip(std::string_view text, std::string_view set, Sides sides);

std::string upper(std::string_view text);
std::string lower(std::string_view text);
std::string title(std::string_view text);
std::string capitalize(std::string_view text);

/// text.split(): at runs of white space; at most `most` cuts where that is not negative.
std::vector<std::string_view> split_space(std::string_view text, int64_t most);
/// `separator` is not empty.
std::vector<std::string_view> split(std::string_view text,
                                    std::string_view separator,
                                    int64_t most);
std::vector<std::string_view> rsplit(std::string_view text,
                                     std::string_view separator,
                                     int64_t most);
std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends);
/// First place of `needle`, npos when there is none. Linear in both whatever they hold.
size_t find(std::string_view text, std::string_view needle, size_t from = 0);
std::string replace(std::string_view text,
                    std::string_view from,
                    std::string_view to,
                    int64_t most);

}  // namespace cohort::core::chat
