# SPDX-License-Identifier: Apache-2.0
# Compiler and linker flags for every target of ours: warnings, hardening, sanitizers, ccache.

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -g1 -DNDEBUG")

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM)
  # Paths relative to the source tree, so that a second checkout finds the first one's objects.
  set(CMAKE_CXX_COMPILER_LAUNCHER
      ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${PROJECT_SOURCE_DIR} CCACHE_NOHASHDIR=1
      ${CCACHE_PROGRAM})
endif()

add_library(postern_flags INTERFACE)
target_include_directories(postern_flags INTERFACE ${PROJECT_SOURCE_DIR} ${PROJECT_BINARY_DIR}/gen)
target_compile_options(postern_flags INTERFACE
  -Wall -Wextra -Wshadow -Wconversion -Wimplicit-fallthrough
  -fstack-protector-strong -fno-omit-frame-pointer)
target_compile_definitions(postern_flags INTERFACE
  _GLIBCXX_ASSERTIONS POSTERN_VERSION="${PROJECT_VERSION}")
if(POSTERN_WERROR)
  target_compile_options(postern_flags INTERFACE -Werror)
endif()
target_link_options(postern_flags INTERFACE -Wl,-z,relro,-z,now -Wl,--as-needed)

include(CheckPIESupported)
check_pie_supported()

if(POSTERN_SANITIZE STREQUAL "address")
  set(postern_sanitizers -fsanitize=address,undefined)
  # With three of ubsan's checks g++ holds a comparison of function addresses for no constant (GCC bug
  # 71962), on which the hash tables of newer abseil stumble.
  include(CheckCXXSourceCompiles)
  set(CMAKE_REQUIRED_FLAGS "-std=c++20 -fsanitize=undefined")
  set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)
  check_cxx_source_compiles("
    #include <string>
    #include <absl/container/flat_hash_map.h>
    int Probe() { absl::flat_hash_map<std::string, int> map; return map[std::string()]; }"
    POSTERN_UBSAN_WHOLE)
  unset(CMAKE_TRY_COMPILE_TARGET_TYPE)
  unset(CMAKE_REQUIRED_FLAGS)
  if(NOT POSTERN_UBSAN_WHOLE)
    list(APPEND postern_sanitizers -fno-sanitize=null,nonnull-attribute,returns-nonnull-attribute)
  endif()
  target_compile_options(postern_flags INTERFACE ${postern_sanitizers} -fno-sanitize-recover=all
    -O1 -include ${PROJECT_SOURCE_DIR}/cmake/sanitize_absl.h)
  target_link_options(postern_flags INTERFACE -fsanitize=address,undefined)
elseif(POSTERN_SANITIZE STREQUAL "thread")
  target_compile_options(postern_flags INTERFACE -fsanitize=thread -O1)
  target_link_options(postern_flags INTERFACE -fsanitize=thread)
elseif(POSTERN_SANITIZE)
  message(FATAL_ERROR "POSTERN_SANITIZE is address, thread or empty, not '${POSTERN_SANITIZE}'")
else()
  # Debian's own flags may define it already, at another level.
  target_compile_options(postern_flags INTERFACE -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2)
endif()

if(POSTERN_FUZZ)
  if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "Clang" OR NOT POSTERN_SANITIZE STREQUAL "address")
    message(FATAL_ERROR "POSTERN_FUZZ needs clang and POSTERN_SANITIZE=address: cmake --preset fuzz")
  endif()
  # What libFuzzer steers by: which edges of the modules an input reaches.
  target_compile_options(postern_flags INTERFACE -fsanitize=fuzzer-no-link)
  target_link_options(postern_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()

# Generated code: our include paths and sanitizers, none of our warnings.
add_library(postern_gen_flags INTERFACE)
target_include_directories(postern_gen_flags INTERFACE ${PROJECT_BINARY_DIR}/gen)
if(POSTERN_SANITIZE STREQUAL "address")
  target_compile_options(postern_gen_flags INTERFACE -fsanitize=address
    -include ${PROJECT_SOURCE_DIR}/cmake/sanitize_absl.h)
elseif(POSTERN_SANITIZE STREQUAL "thread")
  target_compile_options(postern_gen_flags INTERFACE -fsanitize=thread)
endif()
target_compile_options(postern_gen_flags INTERFACE -w -O1)
