# LibTorch from the PyPI wheel, as an imported target of our own.
#
# The wheel's find_package(Torch) asks for a whole CUDA toolkit and breaks on the C++20 dialect of CMake 3.25 + nvcc 13.
# A CPU build needs only libtorch_cpu and libc10; those load two small CUDA runtime libraries that pip puts beside them.
set(COHORT_VENV "${CMAKE_SOURCE_DIR}/.venv" CACHE PATH "Python environment that holds the torch wheel (scripts/setup makes it)")
file(GLOB _torch_candidates "${COHORT_VENV}/lib/python3*/site-packages/torch")
set(COHORT_TORCH_DIR "" CACHE PATH "Folder of the torch wheel; found in COHORT_VENV when empty")
if(COHORT_TORCH_DIR)
  set(_torch "${COHORT_TORCH_DIR}")
elseif(_torch_candidates)
  list(GET _torch_candidates 0 _torch)
else()
  message(FATAL_ERROR "No torch wheel under ${COHORT_VENV}: run scripts/setup, or pass -DCOHORT_TORCH_DIR=<site-packages/torch>")
endif()
if(NOT EXISTS "${_torch}/lib/libtorch_cpu.so")
  message(FATAL_ERROR "${_torch}/lib/libtorch_cpu.so is missing: run scripts/setup again")
endif()
message(STATUS "LibTorch: ${_torch}")

add_library(cohort_torch INTERFACE)
# After the system's folders: the wheel carries other versions of fmt and nlohmann-json.
target_compile_options(cohort_torch INTERFACE
  "SHELL:-idirafter ${_torch}/include" "SHELL:-idirafter ${_torch}/include/torch/csrc/api/include")
target_link_libraries(cohort_torch INTERFACE "${_torch}/lib/libtorch_cpu.so" "${_torch}/lib/libc10.so")
target_link_options(cohort_torch INTERFACE
  "-Wl,--no-as-needed" "-Wl,-rpath,${_torch}/lib" "-Wl,-rpath-link,${_torch}/lib" "-Wl,-rpath-link,${_torch}/../nvidia/cu13/lib")
