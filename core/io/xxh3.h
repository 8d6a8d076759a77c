// XXH3, 64 bits (xxhash): the checksum of checkpoints. It finds damage, not malice.
#pragma once
#include <cstddef>
#include <memory>
#include <string>

namespace cohort::core {

/// Fed piece by piece.
class Xxh3 {
 public:
  Xxh3();
  ~Xxh3();
  void update(const void* data, size_t size);
  std::string hex() const;  ///< 16 lower-case digits.

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Of one piece of memory.
std::string xxh3_hex(const void* data, size_t size);

}  // namespace cohort::core
