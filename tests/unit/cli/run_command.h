// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sstream>
#include <string>
#include <vector>

#include "cli/cli.h"

namespace postern::cli {

// How a command of `postern` ended: its exit status and what it wrote.
struct Outcome {
  int status = -1;
  std::string out, err;
};

// `postern` with these words, in this process.
inline Outcome RunWith(const std::vector<std::string>& words) {
  std::vector<const char*> argv = {"postern"};
  for (const std::string& word : words) {
    argv.push_back(word.c_str());
  }
  std::ostringstream out, err;
  const int status = Run(static_cast<int>(argv.size()), argv.data(), out, err);
  return {status, out.str(), err.str()};
}

}  // namespace postern::cli
