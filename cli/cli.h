// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ostream>

namespace postern::cli {

// The whole of the program `postern`: reads the command line, runs one command, returns the exit
// status: 0 done, 1 failed, 2 usage or configuration. Results go to `out`, messages to `err`.
int Run(int argc, const char* const* argv, std::ostream& out, std::ostream& err);

}  // namespace postern::cli
