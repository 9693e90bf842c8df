// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>

#include "common/base/failure.h"
#include "proxy/session/worker.h"

// What the issuer's messages say about time, where connections are judged. Without an issuer both
// do nothing. Pure but for reading the clock; any thread.
namespace postern::session {

// Puts behind a failure that is about a certificate's time how far this machine's clock is off.
void RemarkClock(const WorkerShared& shared, base::Failure& failure);

// Why no new connection is let through: what is trusted is staler than --max-stale. Nullopt: it is
// not.
std::optional<base::Failure> StaleTrust(const WorkerShared& shared, base::Side side);

}  // namespace postern::session
