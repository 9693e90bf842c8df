// SPDX-License-Identifier: Apache-2.0
#include "common/x509/openssl_error.h"

#include "common/base/bytes.h"
#include "common/base/strings.h"

namespace postern::x509 {

std::string TakeOpensslReason() {
  const char* reason = ERR_reason_error_string(ERR_peek_last_error());
  std::string text = reason == nullptr ? "no reason given" : base::Printable(reason);
  ERR_clear_error();
  return text;
}

absl::Status OpensslFailure(std::string_view what) {
  return absl::InternalError(base::StrCat(what, ": ", TakeOpensslReason()));
}

}  // namespace postern::x509
