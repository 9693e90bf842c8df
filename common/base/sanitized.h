// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace postern::base {

// Whether this is built with a sanitizer: for tests, and never with real keys. It looks at the
// process, at its memory and at each allocation in ways that a release forbids or changes.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

}  // namespace postern::base
