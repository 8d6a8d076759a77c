// The two ways in which Cohort gives up.
//
//   InputError  what the user gave is wrong (a key, a file, a mesh). One line: what, where, and
//   what would be right. Exit code 2. Error       anything else, with the numbers in the message.
//   Exit code 1.
#pragma once
#include <fmt/format.h>

#include <stdexcept>
#include <string>

namespace cohort {

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};
struct InputError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace cohort

/// Throws cohort::Error with a formatted message unless `condition` holds. The message says the
/// numbers, not the expression.
#define COHORT_CHECK(condition, ...)                                     \
  do {                                                                   \
    if (!(condition)) throw ::cohort::Error(::fmt::format(__VA_ARGS__)); \
  } while (0)

/// Throws cohort::InputError with a formatted one-line message unless `condition` holds.
#define COHORT_CHECK_INPUT(condition, ...)                                    \
  do {                                                                        \
    if (!(condition)) throw ::cohort::InputError(::fmt::format(__VA_ARGS__)); \
  } while (0)
