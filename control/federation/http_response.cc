// SPDX-License-Identifier: Apache-2.0
#include "control/federation/http_response.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "common/base/bytes.h"
#include "common/base/strings.h"

namespace postern::federation {
namespace {

constexpr std::string_view kLineEnd = "\r\n";
constexpr std::string_view kHeadEnd = "\r\n\r\n";

absl::Status NoHttp(std::string_view what) {
  return absl::InvalidArgumentError(base::StrCat("the answer is no HTTP/1.1: ", what));
}

std::string_view Trimmed(std::string_view text) {
  return base::ToStd(absl::StripAsciiWhitespace(base::ToAbsl(text)));
}

bool Equals(std::string_view a, std::string_view b) {
  return absl::EqualsIgnoreCase(base::ToAbsl(a), base::ToAbsl(b));
}

absl::Status CheckStatusLine(std::string_view line) {
  const bool shaped =
      line.size() >= 12 && (line.starts_with("HTTP/1.1 ") || line.starts_with("HTTP/1.0 "));
  const auto status = shaped ? base::ParseNumber<uint32_t>(line.substr(9, 3)) : std::nullopt;
  if (!status.has_value() || (line.size() > 12 && line[12] != ' ')) {
    return NoHttp("its first line is none");
  }
  if (*status == 200) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      base::StrCat("the endpoint answered with status ", *status,
                   *status >= 300 && *status < 400 ? "; redirects are not followed" : ""));
}

}  // namespace

absl::Status HttpResponse::ReadHeader(std::string_view line) {
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos || colon == 0 || line.front() == ' ' ||
      line.front() == '\t' || line[colon - 1] == ' ') {
    return NoHttp("a header line is none");
  }
  const std::string_view name = line.substr(0, colon);
  const std::string_view value = Trimmed(line.substr(colon + 1));
  if (Equals(name, "content-length")) {
    const auto length = base::ParseNumber<size_t>(value);
    if (!length.has_value() || (has_length_ && *length != left_)) {
      return NoHttp("its content-length is no length");
    }
    has_length_ = true;
    left_ = *length;
  } else if (Equals(name, "transfer-encoding")) {
    if (chunked_ || !Equals(value, "chunked")) {
      return absl::FailedPreconditionError("the answer has a transfer-encoding beyond chunked");
    }
    chunked_ = true;
  } else if (Equals(name, "content-encoding") && !Equals(value, "identity")) {
    return absl::FailedPreconditionError("the answer is compressed, which was not asked for");
  }
  return absl::OkStatus();
}

absl::Status HttpResponse::DecideBody() {
  if (chunked_ && has_length_) {  // RFC 9112 section 6.3: somebody tries to smuggle
    return NoHttp("it has both a length and chunks");
  }
  if (has_length_ && left_ > max_body_) {
    return absl::ResourceExhaustedError(
        base::StrCat("the answer has ", left_, " bytes, more than ", max_body_));
  }
  if (chunked_) {
    phase_ = Phase::kChunkSize;
  } else if (has_length_) {
    phase_ = left_ == 0 ? Phase::kDone : Phase::kLength;
  } else {
    phase_ = Phase::kUntilEnd;
  }
  return absl::OkStatus();
}

absl::Status HttpResponse::ReadHead(std::string_view head) {
  size_t at = head.find(kLineEnd);
  if (absl::Status status = CheckStatusLine(head.substr(0, at)); !status.ok()) {
    return status;
  }
  while (at != std::string_view::npos) {
    head.remove_prefix(at + kLineEnd.size());
    at = head.find(kLineEnd);
    if (absl::Status status = ReadHeader(head.substr(0, at)); !status.ok()) {
      return status;
    }
  }
  return DecideBody();
}

absl::Status HttpResponse::ReadChunkSize(std::string_view line) {
  const auto size = base::ParseNumber<size_t>(Trimmed(line.substr(0, line.find(';'))), 16);
  if (!size.has_value()) {
    return NoHttp("a chunk has no size");
  }
  if (*size > max_body_ - body_.size()) {
    return absl::ResourceExhaustedError(
        base::StrCat("the answer has more than ", max_body_, " bytes"));
  }
  left_ = *size;
  phase_ = left_ == 0 ? Phase::kTrailer : Phase::kChunk;
  return absl::OkStatus();
}

absl::Status HttpResponse::Append(std::string_view bytes) {
  if (bytes.size() > max_body_ - body_.size()) {
    return absl::ResourceExhaustedError(
        base::StrCat("the answer has more than ", max_body_, " bytes"));
  }
  body_.append(bytes);
  return absl::OkStatus();
}

absl::StatusOr<bool> HttpResponse::StepLine() {
  const bool head = phase_ == Phase::kHead;
  const std::string_view end = head ? kHeadEnd : kLineEnd;
  const size_t at = waiting_.find(end, searched_ - std::min(searched_, end.size() - 1));
  const size_t used = at == std::string::npos ? waiting_.size() : at;
  if (line_bytes_ + used > kMaxResponseHead) {
    return absl::ResourceExhaustedError(
        base::StrCat("the answer's headers have more than ", kMaxResponseHead, " bytes"));
  }
  searched_ = at == std::string::npos ? waiting_.size() : 0;
  if (at == std::string::npos) {
    return false;
  }
  line_bytes_ += head ? 0 : used + 1;
  const std::string line = waiting_.substr(0, at);
  waiting_.erase(0, at + end.size());
  absl::Status status;
  if (head) {
    status = ReadHead(line);
  } else if (phase_ == Phase::kChunkSize) {
    status = ReadChunkSize(line);
  } else if (phase_ == Phase::kChunkEnd) {
    status = line.empty() ? absl::OkStatus() : NoHttp("a chunk is longer than its size");
    phase_ = Phase::kChunkSize;
  } else if (line.empty()) {
    phase_ = Phase::kDone;
  }
  if (!status.ok()) {
    return status;
  }
  return true;
}

absl::StatusOr<bool> HttpResponse::StepBytes() {
  if (waiting_.empty()) {
    return false;
  }
  const bool counted = phase_ != Phase::kUntilEnd;
  const size_t count = counted ? std::min(left_, waiting_.size()) : waiting_.size();
  if (absl::Status status = Append(std::string_view(waiting_).substr(0, count)); !status.ok()) {
    return status;
  }
  waiting_.erase(0, count);
  left_ -= counted ? count : 0;
  if (counted && left_ == 0) {
    phase_ = phase_ == Phase::kLength ? Phase::kDone : Phase::kChunkEnd;
  }
  return true;
}

absl::StatusOr<bool> HttpResponse::Step() {
  switch (phase_) {
    case Phase::kHead:
    case Phase::kChunkSize:
    case Phase::kChunkEnd:
    case Phase::kTrailer:
      return StepLine();
    case Phase::kLength:
    case Phase::kChunk:
    case Phase::kUntilEnd:
      return StepBytes();
    case Phase::kDone:
      return false;
  }
  return false;
}

absl::StatusOr<bool> HttpResponse::Feed(std::string_view bytes) {
  waiting_.append(bytes);
  absl::StatusOr<bool> stepped = true;
  while (stepped.ok() && *stepped) {
    stepped = Step();
  }
  if (!stepped.ok()) {
    return stepped.status();
  }
  return phase_ == Phase::kDone;
}

absl::Status HttpResponse::End(bool cleanly) const {
  if (phase_ == Phase::kDone || (phase_ == Phase::kUntilEnd && cleanly)) {
    return absl::OkStatus();
  }
  return absl::DataLossError("the connection ended within the answer");
}

}  // namespace postern::federation
