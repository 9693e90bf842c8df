// SPDX-License-Identifier: Apache-2.0
// Included before everything else in address sanitizer builds. Abseil's headers change the layout of
// its hash tables and poison their memory when they are compiled with that sanitizer; Debian's
// libabsl was compiled without, so both would disagree (Debian 13: a crash at the first insertion).
#pragma once

#include <absl/base/config.h>

#undef ABSL_HAVE_ADDRESS_SANITIZER
