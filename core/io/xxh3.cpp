#include "core/io/xxh3.h"

#include <fmt/format.h>
#include <xxhash.h>

namespace cohort::core {

struct Xxh3::State {
  std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> xxh{XXH3_createState(), XXH3_freeState};
};

Xxh3::Xxh3() : state_(std::make_unique<State>()) {
  if (!state_->xxh) throw std::bad_alloc();
  XXH3_64bits_reset(state_->xxh.get());
}
Xxh3::~Xxh3() = default;

void Xxh3::update(const void* data, size_t size) {
  if (size > 0) XXH3_64bits_update(state_->xxh.get(), data, size);
}

std::string Xxh3::hex() const {
  return fmt::format("{:016x}", XXH3_64bits_digest(state_->xxh.get()));
}

std::string xxh3_hex(const void* data, size_t size) {
  return fmt::format("{:016x}", XXH3_64bits(data, size));
}

}  // namespace cohort::core
