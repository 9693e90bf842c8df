// SPDX-License-Identifier: Apache-2.0
#include "proxy/tls/record_layer.h"

#include <openssl/ssl.h>

#include <algorithm>
#include <array>

#include "proxy/tls/handshake_messages.h"

namespace postern::tls {
namespace {

using Step = RecordLayer::Step;
using Kind = RecordLayer::Kind;

constexpr uint8_t kAlertUserCanceled = 90;
constexpr auto kNewSessionTicket = static_cast<uint8_t>(HandshakeType::kNewSessionTicket);
constexpr auto kKeyUpdate = static_cast<uint8_t>(HandshakeType::kKeyUpdate);
constexpr uint8_t kUpdateNotRequested = 0;
constexpr uint8_t kUpdateRequested = 1;
constexpr size_t kKeyUpdateBytes = kHandshakeHeaderBytes + 1;
constexpr size_t kMaxMessageBytes = 16U << 10U;
constexpr uint8_t kWarning = 1;
constexpr uint8_t kFatal = 2;

Step Refuse(int alert, const char* text) {
  return {
      Kind::kFault, 0, -1, {static_cast<uint8_t>(alert), absl::StatusCode::kUnauthenticated, text}};
}

Step Unexpected(const char* text, base::CloseReason reason = base::CloseReason::kHandshakeFailed) {
  Step step = Refuse(SSL_AD_UNEXPECTED_MESSAGE, text);
  step.fault.reason = reason;
  return step;
}

Step Control() {
  return {Kind::kControl, 0, -1, {}};
}

// Of the body, as its header says.
size_t BodyBytes(base::ByteSpan header) {
  return static_cast<size_t>(header[1]) << 16U | static_cast<size_t>(header[2]) << 8U | header[3];
}

// What a record's header says; kControl: nothing against it.
Step CheckRecordHeader(base::ByteSpan record) {
  if (record.size() < kRecordHeaderBytes) {
    return Refuse(SSL_AD_DECODE_ERROR, "a record without its header");
  }
  switch (static_cast<ContentType>(record[0])) {
    case ContentType::kApplicationData:
      break;
    case ContentType::kChangeCipherSpec:
      return Unexpected("a ChangeCipherSpec after the handshake");
    case ContentType::kAlert:
      return Unexpected("an alert in the clear after the handshake");
    default:
      return Unexpected("a record in the clear after the handshake");
  }
  const size_t length = static_cast<size_t>(record[3]) << 8U | record[4];
  if (length > kMaxRecordCiphertext) {
    return Refuse(SSL_AD_RECORD_OVERFLOW, "encrypted length too long");
  }
  if (record.size() != kRecordHeaderBytes + length) {
    return Refuse(SSL_AD_DECODE_ERROR, "a record that is not whole");
  }
  return Control();
}

}  // namespace

std::unique_ptr<RecordLayer> RecordLayer::Create(const Settings& settings, base::ByteSpan read,
                                                 base::ByteSpan write) {
  std::unique_ptr<RecordLayer> layer(new RecordLayer(settings));
  if (!layer->reader_.Start(settings.suite, read, RecordCipher::Use::kOpen) ||
      !layer->writer_.Start(settings.suite, write, RecordCipher::Use::kSeal)) {
    return nullptr;
  }
  return layer;
}

Step RecordLayer::Open(base::ByteSpan record, base::MutableByteSpan room) {
  const Step header = CheckRecordHeader(record);
  if (header.kind != Kind::kControl) {
    return header;
  }
  const auto opened = reader_.Open(record, room);
  if (!opened.has_value()) {
    return Refuse(SSL_AD_BAD_RECORD_MAC, "decryption failed or bad record mac");
  }
  if (opened->inner > kMaxRecordPlaintext + 1) {
    return Refuse(SSL_AD_RECORD_OVERFLOW, "a record of more than 16 KiB");
  }
  const base::ByteSpan content(room.data(), opened->bytes);
  if (opened->type == ContentType::kApplicationData && !inside_ && !content.empty()) {
    return {Kind::kData, content.size(), -1, {}};
  }
  if (opened->type == ContentType::kInvalid) {
    return Unexpected("a record of padding alone");
  }
  if (inside_ && opened->type != ContentType::kHandshake &&
      (opened->type != ContentType::kAlert || !unfinished_.empty())) {
    return Unexpected("a record of another type inside a handshake message or an answer",
                      unfinished_.empty() ? base::CloseReason::kReauthFailed
                                          : base::CloseReason::kHandshakeFailed);
  }
  if (!budget_.Take(settings_.clock->SinceBoot())) {
    return {Kind::kFault,
            0,
            -1,
            {SSL_AD_UNEXPECTED_MESSAGE, absl::StatusCode::kResourceExhausted,
             "the peer sends too many records without application data (KeyUpdate, tickets)"}};
  }
  switch (opened->type) {
    case ContentType::kApplicationData:
      return Control();  // of no bytes: legal, and counted
    case ContentType::kAlert:
      return OnAlert(content);
    case ContentType::kHandshake:
      return OnHandshake(content);
    default:
      return Unexpected("a record of an unknown type");
  }
}

Step RecordLayer::OnAlert(base::ByteSpan content) const {
  if (content.size() != 2) {
    return Refuse(SSL_AD_DECODE_ERROR, "a record of alerts that does not hold exactly one");
  }
  // The level says nothing in TLS 1.3 (RFC 8446 section 6).
  switch (content[1]) {
    case SSL_AD_CLOSE_NOTIFY:
      return {Kind::kEnd, 0, -1, {}};
    case kAlertUserCanceled:
      return Control();
    default:
      return {Kind::kAlert, 0, content[1], {}};
  }
}

Step RecordLayer::OnHandshake(base::ByteSpan content) {
  if (content.empty()) {
    return Unexpected("an empty handshake record");
  }
  const Step step = unfinished_.empty() ? OnMessages(content) : OnContinued(content);
  inside_ = !unfinished_.empty() || (auth_ != nullptr && auth_->IsInside());
  return step;
}

Step RecordLayer::OnContinued(base::ByteSpan content) {
  // CheckMessageHeader bounds what is gathered here.
  std::vector<uint8_t> gathered(unfinished_.size() + content.size());
  std::copy(content.begin(), content.end(),
            std::copy(unfinished_.begin(), unfinished_.end(), gathered.begin()));
  std::vector<uint8_t>().swap(unfinished_);
  const Step step = OnMessages(gathered);
  return step.kind == Kind::kTickets ? Control() : step;  // of this record alone they are not
}

Step RecordLayer::OnMessages(base::ByteSpan content) {
  bool only_tickets = true;
  while (!content.empty()) {
    const base::ByteSpan header = content.first(std::min(content.size(), kHandshakeHeaderBytes));
    const Step checked = CheckMessageHeader(header);
    if (checked.kind != Kind::kControl) {
      return checked;
    }
    const size_t size = header.size() < kHandshakeHeaderBytes
                            ? content.size() + 1
                            : kHandshakeHeaderBytes + BodyBytes(header);
    if (size > content.size()) {
      unfinished_.assign(content.begin(), content.end());
      return Control();
    }
    const Step step = OnMessage(content.first(size), size == content.size());
    if (step.kind == Kind::kFault) {
      return step;
    }
    only_tickets = only_tickets && step.kind == Kind::kTickets;
    content = content.subspan(size);
  }
  return only_tickets ? Step{Kind::kTickets, 0, -1, {}} : Control();
}

Step RecordLayer::CheckMessageHeader(base::ByteSpan header) const {
  const bool ticket = header[0] == kNewSessionTicket && settings_.role == Role::kClient;
  const std::optional<size_t> most = auth_ == nullptr ? std::nullopt : auth_->MostBytes(header[0]);
  if (!most.has_value() && auth_ != nullptr && auth_->IsInside()) {
    return Unexpected("another message inside an answer", base::CloseReason::kReauthFailed);
  }
  if (!most.has_value() && !ticket && header[0] != kKeyUpdate) {
    return Unexpected("a handshake message that has no place after the handshake");
  }
  if (header.size() < kHandshakeHeaderBytes) {
    return Control();
  }
  if (header[0] == kKeyUpdate && BodyBytes(header) != 1) {
    return Refuse(SSL_AD_DECODE_ERROR, "a KeyUpdate of the wrong length");
  }
  if (BodyBytes(header) > most.value_or(kMaxMessageBytes - kHandshakeHeaderBytes)) {
    Step step = Refuse(SSL_AD_ILLEGAL_PARAMETER, "excessive message size");
    step.fault.reason = most.has_value() ? base::CloseReason::kReauthFailed : step.fault.reason;
    return step;
  }
  return Control();
}

Step RecordLayer::OnMessage(base::ByteSpan message, bool last) {
  if (message[0] == kKeyUpdate) {
    return OnKeyUpdate(message, last);
  }
  if (message[0] == kNewSessionTicket) {
    return {Kind::kTickets, 0, -1, {}};
  }
  const std::optional<RecordFault> fault = auth_->Take(message);
  return fault.has_value() ? Step{Kind::kFault, 0, -1, *fault} : Control();
}

Step RecordLayer::OnKeyUpdate(base::ByteSpan message, bool last) {
  if (!last) {
    return Unexpected("a KeyUpdate that is not the last message of its record");
  }
  const uint8_t request = message[kHandshakeHeaderBytes];
  if (request != kUpdateRequested && request != kUpdateNotRequested) {
    return Refuse(SSL_AD_ILLEGAL_PARAMETER, "a KeyUpdate with an unknown request");
  }
  if (!reader_.Advance()) {
    return Refuse(SSL_AD_INTERNAL_ERROR, "OpenSSL derives no new keys");
  }
  // Answered in front of our next data, once however often it is asked: whoever does not read can
  // not make us pile up answers.
  owes_update_ = owes_update_ || request == kUpdateRequested;
  return Control();
}

// One number is left for the KeyUpdate itself.
bool RecordLayer::UpdateKeysIfDue(RecordBuffer& out) {
  if (!owes_update_ && writer_.sequence() + 1 < settings_.rekey_after) {
    return true;
  }
  constexpr std::array<uint8_t, kKeyUpdateBytes> kMessage = {kKeyUpdate, 0, 0, 1,
                                                             kUpdateNotRequested};
  owes_update_ = false;
  return writer_.Seal(ContentType::kHandshake, kMessage, out) && writer_.Advance();
}

bool RecordLayer::Seal(base::ByteSpan plaintext, RecordBuffer& out) {
  return UpdateKeysIfDue(out) && writer_.Seal(ContentType::kApplicationData, plaintext, out);
}

// No update comes between: a Finished is made with the secret of its records. The few of them past
// the limit are far below that of RFC 8446 section 5.5.
bool RecordLayer::SealHandshake(base::ByteSpan messages, size_t most, RecordBuffer& out) {
  bool sealed = true;
  while (sealed && !messages.empty()) {
    const base::ByteSpan piece = messages.first(std::min(most, messages.size()));
    sealed = writer_.Seal(ContentType::kHandshake, piece, out);
    messages = messages.subspan(piece.size());
  }
  return sealed;
}

bool RecordLayer::ClientFinishedMac(base::ByteSpan transcript_hash,
                                    base::MutableByteSpan mac) const {
  const RecordCipher& client = settings_.role == Role::kClient ? writer_ : reader_;
  return client.FinishedMac(transcript_hash, mac);
}

bool RecordLayer::SealAlert(uint8_t description, RecordBuffer& out) {
  const std::array<uint8_t, 2> alert = {description == SSL_AD_CLOSE_NOTIFY ? kWarning : kFatal,
                                        description};
  return writer_.Seal(ContentType::kAlert, alert, out);
}

}  // namespace postern::tls
