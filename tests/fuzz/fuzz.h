// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

// A fuzz target is tests/fuzz/<target>/fuzz.cc, which defines LLVMFuzzerTestOneInput, and its
// seeds, tests/fuzz/<target>/corpus/*. clang builds it with libFuzzer (the preset `fuzz`); every
// build replays the seeds, what libFuzzer found beyond them (found/*), and mutations of both
// (replay_test.cc).
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

// A property that must hold for every input; ends the program, which is what fuzzers look for.
#define POSTERN_FUZZ_CHECK(condition)                                                     \
  do {                                                                                    \
    if (!(condition)) {                                                                   \
      std::fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                       \
    }                                                                                     \
  } while (false)
