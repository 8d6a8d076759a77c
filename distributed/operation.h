// Which collective it is, for messages.
#pragma once
#include <cstdint>
#include <string>

namespace cohort::distributed {

struct Operation {
  const char* name;  ///< "all_reduce", ...
  std::string axis;  ///< Of the mesh.
  int rank;          ///< On the axis.
  int64_t sequence;  ///< How many operations this communicator had begun.
};

}  // namespace cohort::distributed
