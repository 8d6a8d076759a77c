// A chat template's text into its tree.
#pragma once
#include <string>
#include <string_view>

#include "core/chat/ast.h"

namespace cohort::core::chat {

struct Template {
  Block body;
  bool has_generation = false;  ///< Whether a {% generation %} stands in it.
};

/// Throws InputError "NAME:LINE: ..." for what is wrong or not known.
Template parse_template(std::string_view source, const std::string& name);

}  // namespace cohort::core::chat
