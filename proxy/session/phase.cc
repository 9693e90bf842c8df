// SPDX-License-Identifier: Apache-2.0
#include "proxy/session/phase.h"

#include "common/base/enum_index.h"

namespace postern::session {
namespace {

using base::At;
using base::CloseReason;

// accept -> [original destination] -> [first bytes] -> sniff -> [await identity] -> handshake ->
// identify -> authorize -> connect -> relay -> close
constexpr PhaseTable MakeInbound() {
  PhaseTable t;
  t[At(Phase::kAccept)] = {Deadline::kInstant,
                           CloseReason::kInternal,
                           {Phase::kOriginalDestination, Phase::kSniff, Phase::kClosed}};
  t[At(Phase::kOriginalDestination)] = {
      Deadline::kInstant,
      CloseReason::kInternal,
      {Phase::kFirstBytes, Phase::kSniff, Phase::kAuthorize, Phase::kClosed}};
  t[At(Phase::kFirstBytes)] = {Deadline::kSniff,
                               CloseReason::kSniffTimeout,
                               {Phase::kSniff, Phase::kAuthorize, Phase::kClosed}};
  t[At(Phase::kSniff)] = {
      Deadline::kHandshake,
      CloseReason::kHandshakeTimeout,
      {Phase::kAwaitIdentity, Phase::kHandshake, Phase::kAuthorize, Phase::kRelay, Phase::kClosed}};
  t[At(Phase::kAwaitIdentity)] = {
      Deadline::kHandshake, CloseReason::kNoIdentity, {Phase::kHandshake, Phase::kClosed}};
  t[At(Phase::kHandshake)] = {Deadline::kHandshake,
                              CloseReason::kHandshakeTimeout,
                              {Phase::kIdentify, Phase::kLinger, Phase::kClosed}};
  t[At(Phase::kIdentify)] = {Deadline::kInstant,
                             CloseReason::kInternal,
                             {Phase::kAuthorize, Phase::kLinger, Phase::kClosed}};
  t[At(Phase::kAuthorize)] = {Deadline::kInstant,
                              CloseReason::kInternal,
                              {Phase::kConnect, Phase::kRelay, Phase::kLinger, Phase::kClosed}};
  t[At(Phase::kConnect)] = {Deadline::kConnect,
                            CloseReason::kConnectTimeout,
                            {Phase::kServerFirst, Phase::kRelay, Phase::kLinger, Phase::kClosed}};
  t[At(Phase::kServerFirst)] = {
      Deadline::kIdle,
      CloseReason::kIdleTimeout,
      {Phase::kSniff, Phase::kServerHeld, Phase::kRelay, Phase::kLinger, Phase::kClosed}};
  t[At(Phase::kServerHeld)] = {Deadline::kHelloGrace,
                               CloseReason::kSniffTimeout,
                               {Phase::kSniff, Phase::kRelay, Phase::kLinger, Phase::kClosed}};
  t[At(Phase::kRelay)] = {
      Deadline::kIdle, CloseReason::kIdleTimeout, {Phase::kLinger, Phase::kClosed}};
  t[At(Phase::kLinger)] = {Deadline::kLinger, CloseReason::kInternal, {Phase::kClosed}};
  t[At(Phase::kClosed)] = {Deadline::kInstant, CloseReason::kInternal, {}};
  return t;
}

// accept -> [original destination or request -> classify] -> [await identity] -> connect ->
// handshake -> identify -> authorize -> relay -> close; a plaintext destination goes from connect
// to relay. Reconnect comes after a handshake and leads to one: never from the mesh to plaintext.
constexpr PhaseTable MakeOutbound() {
  PhaseTable t;
  t[At(Phase::kAccept)] = {Deadline::kInstant,
                           CloseReason::kInternal,
                           {Phase::kOriginalDestination, Phase::kRequest, Phase::kAwaitIdentity,
                            Phase::kConnect, Phase::kClosed}};
  t[At(Phase::kRequest)] = {Deadline::kRequest,
                            CloseReason::kProxyRequestTimeout,
                            {Phase::kClassify, Phase::kLinger, Phase::kClosed}};
  t[At(Phase::kReconnect)] = {Deadline::kConnect,
                              CloseReason::kConnectTimeout,
                              {Phase::kHandshake, Phase::kLinger, Phase::kClosed}};
  t[At(Phase::kOriginalDestination)] = {
      Deadline::kInstant, CloseReason::kInternal, {Phase::kClassify, Phase::kClosed}};
  t[At(Phase::kClassify)] = {
      Deadline::kLookup,
      CloseReason::kLookupTimeout,
      {Phase::kFirstBytes, Phase::kAwaitIdentity, Phase::kConnect, Phase::kLinger, Phase::kClosed}};
  t[At(Phase::kFirstBytes)] = {
      Deadline::kSniff,
      CloseReason::kSniffTimeout,
      {Phase::kAwaitIdentity, Phase::kConnect, Phase::kLinger, Phase::kClosed}};
  t[At(Phase::kAwaitIdentity)] = {Deadline::kHandshake,
                                  CloseReason::kNoIdentity,
                                  {Phase::kConnect, Phase::kLinger, Phase::kClosed}};
  t[At(Phase::kConnect)] = {Deadline::kConnect,
                            CloseReason::kConnectTimeout,
                            {Phase::kHandshake, Phase::kRelay, Phase::kLinger, Phase::kClosed}};
  t[At(Phase::kHandshake)] = {
      Deadline::kHandshake,
      CloseReason::kHandshakeTimeout,
      {Phase::kIdentify, Phase::kReconnect, Phase::kLinger, Phase::kClosed}};
  t[At(Phase::kIdentify)] = {Deadline::kInstant,
                             CloseReason::kInternal,
                             {Phase::kAuthorize, Phase::kLinger, Phase::kClosed}};
  t[At(Phase::kAuthorize)] = {
      Deadline::kInstant, CloseReason::kInternal, {Phase::kRelay, Phase::kLinger, Phase::kClosed}};
  t[At(Phase::kRelay)] = {
      Deadline::kIdle, CloseReason::kIdleTimeout, {Phase::kLinger, Phase::kClosed}};
  t[At(Phase::kLinger)] = {Deadline::kLinger, CloseReason::kInternal, {Phase::kClosed}};
  t[At(Phase::kClosed)] = {Deadline::kInstant, CloseReason::kInternal, {}};
  return t;
}

constexpr PhaseTable kInboundPhases = MakeInbound();
constexpr PhaseTable kOutboundPhases = MakeOutbound();

constexpr std::array<std::string_view, kPhaseCount> kTokens = {
    "accept",       "original_destination",
    "first_bytes",  "sniff",
    "classify",     "await_identity",
    "connect",      "handshake",
    "identify",     "authorize",
    "server_first", "request",
    "reconnect",    "relay",
    "linger",       "closed",
    "server_held"};

}  // namespace

std::string_view Token(Phase phase) noexcept {
  return kTokens[At(phase)];
}

const PhaseTable& PhasesOf(base::Direction direction) noexcept {
  return direction == base::Direction::kInbound ? kInboundPhases : kOutboundPhases;
}

}  // namespace postern::session
