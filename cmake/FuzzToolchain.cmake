# SPDX-License-Identifier: Apache-2.0
# The compiler of the preset `fuzz`: libFuzzer is clang's. The newest one that Debian 13 or 12 calls by
# its number comes first; Debian 12's plain `clang++` is version 14, older than the code asks for.
find_program(POSTERN_FUZZ_CXX NAMES clang++-19 clang++-17 clang++-16 clang++ REQUIRED)
set(CMAKE_CXX_COMPILER ${POSTERN_FUZZ_CXX})
