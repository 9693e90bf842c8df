// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace postern::base {

// Whether `name` can be the name of a host: at most 253 bytes in labels of 1 to 63 letters, digits,
// '-' and '_' (RFC 1035 section 2.3.4), without a final dot. What ends in a number was meant to be
// an address and is none. Pure.
bool IsHostName(std::string_view name);

// The one spelling by which names are compared: lower case (RFC 4343), without the final dot that
// says that no search domain is to be tried. Pure.
std::string CanonicalHostName(std::string_view name);

}  // namespace postern::base
