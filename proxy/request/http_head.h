// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string_view>
#include <variant>

#include "proxy/request/destination.h"

namespace postern::request {

// Why the head of a request is refused: the status to say, and a sentence for the log.
struct HttpFault {
  int status = 400;
  std::string_view why;
};

// "host:port" or "[v6]:port" (RFC 9112 section 3.2.3, authority-form; a port is a must). nullopt:
// anything else, also port 0 and an unspecified address. Pure.
std::optional<Destination> ParseAuthority(std::string_view authority);

// A host as the client wrote it: an address, or a name, maybe with a final dot; nullopt for
// anything else. Pure.
std::optional<Destination> ParseHost(std::string_view host, uint16_t port);

// The head of an HTTP/1 request, from its first byte to before the empty line, whose lines end in
// CRLF. Pure.
std::variant<Destination, HttpFault> ParseConnectHead(std::string_view head);

}  // namespace postern::request
