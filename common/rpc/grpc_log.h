// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace postern::rpc {

// Sends what gRPC itself has to say (handshakes that broke, pings unanswered), and protobuf
// (messages that do not parse, a line for each that anybody sends), to our log instead of standard
// error: errors as debug lines, because each of them reaches its caller as a Status as well. Call
// once in main, after InitLogging and before the first channel or server.
void RouteGrpcLog();

}  // namespace postern::rpc
