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

# The CUDA part, with COHORT_GPU: libtorch_cuda registers itself when it is loaded, so it is linked though no symbol of
# it is named. Headers of NCCL and of the CUDA runtime come from the wheels, else from a CUDA toolkit.
if(COHORT_GPU)
  get_filename_component(_nvidia "${_torch}/../nvidia" ABSOLUTE)
  set(_toolkit /usr/local/cuda)
  if(DEFINED ENV{CUDA_HOME})
    set(_toolkit "$ENV{CUDA_HOME}")
  endif()
  find_file(COHORT_NCCL NAMES libnccl.so.2 PATHS "${_nvidia}/nccl/lib" "${_toolkit}/lib64" NO_DEFAULT_PATH)
  find_path(COHORT_NCCL_INCLUDE nccl.h PATHS "${_nvidia}/nccl/include" "${_toolkit}/include" NO_DEFAULT_PATH)
  find_file(COHORT_CUDART NAMES libcudart.so.13 PATHS "${_nvidia}/cu13/lib" "${_toolkit}/lib64" NO_DEFAULT_PATH)
  find_path(COHORT_CUDA_INCLUDE cuda_runtime_api.h PATHS "${_nvidia}/cu13/include" "${_toolkit}/include" NO_DEFAULT_PATH)
  foreach(_needed COHORT_NCCL COHORT_NCCL_INCLUDE COHORT_CUDART COHORT_CUDA_INCLUDE)
    if(NOT ${_needed})
      message(FATAL_ERROR "COHORT_GPU: ${_needed} was not found below ${_nvidia} nor ${_toolkit}: run scripts/setup --cuda")
    endif()
  endforeach()
  if(NOT EXISTS "${_torch}/lib/libtorch_cuda.so")
    message(FATAL_ERROR "${_torch}/lib/libtorch_cuda.so is missing: run scripts/setup --cuda")
  endif()
  target_link_libraries(cohort_torch INTERFACE
    "${_torch}/lib/libtorch_cuda.so" "${_torch}/lib/libc10_cuda.so" "${_torch}/lib/libtorch.so")
  file(GLOB _nvidia_libraries "${_nvidia}/*/lib")
  foreach(_folder ${_nvidia_libraries})
    target_link_options(cohort_torch INTERFACE "-Wl,-rpath,${_folder}" "-Wl,-rpath-link,${_folder}")
  endforeach()
  add_library(cohort_nccl INTERFACE)
  target_include_directories(cohort_nccl SYSTEM INTERFACE "${COHORT_NCCL_INCLUDE}" "${COHORT_CUDA_INCLUDE}")
  target_link_libraries(cohort_nccl INTERFACE "${COHORT_NCCL}" "${COHORT_CUDART}")
  message(STATUS "NCCL: ${COHORT_NCCL}; CUDA runtime: ${COHORT_CUDART}")
endif()
