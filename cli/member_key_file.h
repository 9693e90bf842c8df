// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace postern::cli {

// The selector ("key:sha256:HEX") of the public key in a PEM file: a PUBLIC KEY, or a certificate
// for it; "-" reads standard input. InvalidArgument names --member-key.
absl::StatusOr<std::string> ReadMemberKeySelector(const std::string& file);

}  // namespace postern::cli
