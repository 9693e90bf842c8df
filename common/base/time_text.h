// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/time/time.h"

namespace postern::base {

// A time for people and for JSON, to the second, in UTC: "2026-01-02T03:04:05Z" (RFC 3339). Pure.
std::string TimeText(absl::Time time);

// The same to the microsecond, where the order of events matters: "2026-01-02T03:04:05.678901Z".
std::string EventTimeText(absl::Time time);

}  // namespace postern::base
