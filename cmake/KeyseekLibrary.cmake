# The target keyseek: everything in src/ but the command line tool and its sweep; and its HDF5 helper.

set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
find_package(HDF5 REQUIRED COMPONENTS C)
find_package(xxHash REQUIRED)
find_package(Eigen3 3.4 REQUIRED NO_MODULE)
find_package(xsimd REQUIRED)

file(GLOB sources CONFIGURE_DEPENDS src/*.cpp src/*/*.cpp)
list(FILTER sources EXCLUDE REGEX "/src/(cli|helper|sweep)/|/src/score/isa_")
if(KEYSEEK_CUDA)
  list(FILTER sources EXCLUDE REGEX "/src/cuda/without_cuda")
  list(APPEND sources cuda/device_runtime.cpp cuda/launch.cu)
endif()

# One unit per instruction set, each compiled for its own; the best one the CPU runs is chosen
# at run time. No other file may use more than the processor family guarantees.
set(score src/score/isa)
set(isa_units ${score}_baseline.cpp)
set(avx2 -mavx2 -mfma -mf16c -mbmi2)
set(avx512 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c -mbmi2)
# GCC's own AVX-512 intrinsics hand over an undefined register on purpose, and it warns of it
# (GCC bug 105593).
list(APPEND avx512 $<$<CXX_COMPILER_ID:GNU>:-Wno-uninitialized>
     $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  list(APPEND isa_units ${score}_avx2.cpp ${score}_avx512.cpp ${score}_avx512_vnni.cpp)
  set_source_files_properties(${score}_avx2.cpp PROPERTIES COMPILE_OPTIONS "${avx2}")
  set_source_files_properties(${score}_avx512.cpp PROPERTIES COMPILE_OPTIONS "${avx512}")
  set_source_files_properties(${score}_avx512_vnni.cpp
                              PROPERTIES COMPILE_OPTIONS "${avx512};-mavx512vnni")
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
  list(APPEND isa_units ${score}_neon.cpp)
endif()
# `omp simd` loops without an OpenMP runtime. Nobody reads errno or floating-point exception
# flags after an inner product, and not having to keep them lets loops with a sqrt or a
# conditional become vector code. Neither flag changes a result (-ffast-math would).
set_property(SOURCE ${isa_units} APPEND PROPERTY COMPILE_OPTIONS -fopenmp-simd -fno-math-errno
                                                 -fno-trapping-math)

set(generated "${PROJECT_BINARY_DIR}/generated/include")
configure_file(include/keyseek/version.hpp.in "${generated}/keyseek/version.hpp" @ONLY)
file(GLOB headers CONFIGURE_DEPENDS include/keyseek/*.hpp)

add_library(keyseek ${sources} ${isa_units})
add_library(keyseek::keyseek ALIAS keyseek)
set_target_properties(
  keyseek
  PROPERTIES POSITION_INDEPENDENT_CODE ON
             VISIBILITY_INLINES_HIDDEN ON
             VERIFY_INTERFACE_HEADER_SETS ${PROJECT_IS_TOP_LEVEL}
             VERSION ${PROJECT_VERSION}
             SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
keyseek_compile_options(keyseek)
target_sources(
  keyseek PUBLIC FILE_SET HEADERS BASE_DIRS include "${generated}" FILES
                 ${headers} "${generated}/keyseek/version.hpp")
target_include_directories(keyseek PRIVATE src "${PROJECT_SOURCE_DIR}") # "cuda/..."
# xsimd is headers only; Debian's target would link xtl, which it does not install.
target_include_directories(
  keyseek SYSTEM PRIVATE $<TARGET_PROPERTY:xsimd,INTERFACE_INCLUDE_DIRECTORIES>)
# Eigen stays out of the installed target: no public header includes it.
target_link_libraries(
  keyseek
  PUBLIC Threads::Threads
  PRIVATE fmt::fmt hdf5::hdf5 xxHash::xxhash $<BUILD_INTERFACE:Eigen3::Eigen>)
# ThreadSanitizer does not see how OpenMP's runtime synchronises.
if(KEYSEEK_OPENMP AND NOT KEYSEEK_SANITIZE MATCHES "thread")
  find_package(OpenMP COMPONENTS CXX)
endif()
if(OpenMP_CXX_FOUND)
  # One file is compiled with it: Eigen, elsewhere, would start threads of its own accord.
  separate_arguments(openmp_flags UNIX_COMMAND "${OpenMP_CXX_FLAGS}")
  set_source_files_properties(src/base/openmp_executor.cpp PROPERTIES COMPILE_OPTIONS
                                                                      "${openmp_flags}")
  target_link_libraries(keyseek PRIVATE $<LINK_ONLY:OpenMP::OpenMP_CXX>)
endif()
if(KEYSEEK_SANITIZE) # decompositions by Eigen, which the sanitizers' -O1 makes very slow
  set_source_files_properties(
    src/base/leading.cpp src/sketch/coordinates.cpp src/sketch/wide.cpp src/router/query_map.cpp
    src/attention/tail_fit.cpp PROPERTIES COMPILE_OPTIONS -O2)
endif()
if(KEYSEEK_CUDA)
  find_package(CUDAToolkit REQUIRED)
  target_link_libraries(keyseek PRIVATE CUDA::cudart_static)
endif()

# Takes HDF5 files apart in a process of its own (Hdf5Access in io.hpp).
add_executable(keyseek_hdf5 src/helper/main.cpp)
set_target_properties(keyseek_hdf5 PROPERTIES OUTPUT_NAME keyseek-hdf5)
if(BUILD_SHARED_LIBS)
  set_target_properties(keyseek_hdf5 PROPERTIES INSTALL_RPATH
                                                "$ORIGIN/../${CMAKE_INSTALL_LIBDIR}")
endif()
keyseek_compile_options(keyseek_hdf5)
target_link_libraries(keyseek_hdf5 PRIVATE keyseek)
