// Entry point of the tests of the device kernels, which need neither MPI nor LibTorch.
#define CATCH_CONFIG_RUNNER
#include "tests/kernels/device_runs.h"

int main(int argc, char** argv) {
  const int failed = Catch::Session().run(argc, argv);
  std::printf("device kernels: %lld combinations of sizes and types run and compared\n",
              static_cast<long long>(cohort::tests::combinations));
  return failed;
}
