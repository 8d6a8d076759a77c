// Seeded changes to a text: of its bytes, or of the JSON in it. Mutation i of a seed is always the
// same, so that a failure is repeated by its number.
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "core/base/rng.h"

namespace cohort::tests {

class Mutation {
 public:
  Mutation(uint64_t seed, uint64_t number) : seed_(seed), number_(number) {}

  uint64_t draw(uint64_t below) { return core::random_bits(seed_, number_, draws_++) % below; }
  /// One to four edits of bytes: flipped bits, tokens of JSON, pieces cut, doubled or moved.
  std::string bytes(std::string text);
  /// One to four values of the document replaced, renamed or removed.
  nlohmann::ordered_json json(nlohmann::ordered_json document);

 private:
  void edit(std::string& text);
  void edit(nlohmann::ordered_json& document);
  nlohmann::ordered_json value(const nlohmann::ordered_json& old);

  uint64_t seed_, number_, draws_ = 0;
};

}  // namespace cohort::tests
