// SPDX-License-Identifier: Apache-2.0
#include "proxy/tls/engine_bio.h"

#include <openssl/bio.h>

namespace postern::tls {
namespace {

using BioMethodPtr = x509::OpensslPtr<BIO_METHOD, BIO_meth_free>;

EngineIo& IoOf(BIO* bio) {
  return *static_cast<EngineIo*>(BIO_get_data(bio));
}

// Stale retry flags make OpenSSL return WANT_READ without reading, for ever: they are cleared in
// every call of both directions (failures.md C13).
int OnRead(BIO* bio, char* buffer, int size) noexcept {
  BIO_clear_retry_flags(bio);
  if (size <= 0) {
    return 0;
  }
  const size_t got =
      IoOf(bio).TakeInput({reinterpret_cast<uint8_t*>(buffer), static_cast<size_t>(size)});
  if (got == 0) {
    BIO_set_retry_read(bio);
    return -1;
  }
  return static_cast<int>(got);
}

int OnWrite(BIO* bio, const char* bytes, int size) noexcept {
  BIO_clear_retry_flags(bio);
  if (size <= 0) {
    return 0;
  }
  IoOf(bio).PutOutput({reinterpret_cast<const uint8_t*>(bytes), static_cast<size_t>(size)});
  return size;
}

long OnControl(BIO* /*bio*/, int command, long /*number*/, void* /*pointer*/) noexcept {
  return command == BIO_CTRL_FLUSH ? 1 : 0;  // what is written counts as gone
}

int OnCreate(BIO* bio) noexcept {
  BIO_set_init(bio, 1);
  return 1;
}

const BIO_METHOD* Method() {
  static const BioMethodPtr method = [] {
    BioMethodPtr made(BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "postern engine"));
    if (made != nullptr && (BIO_meth_set_read(made.get(), &OnRead) != 1 ||
                            BIO_meth_set_write(made.get(), &OnWrite) != 1 ||
                            BIO_meth_set_ctrl(made.get(), &OnControl) != 1 ||
                            BIO_meth_set_create(made.get(), &OnCreate) != 1)) {
      made.reset();
    }
    return made;
  }();
  return method.get();
}

}  // namespace

x509::BioPtr NewEngineBio(EngineIo& io) {
  x509::BioPtr bio(Method() == nullptr ? nullptr : BIO_new(Method()));
  if (bio != nullptr) {
    BIO_set_data(bio.get(), &io);
  }
  return bio;
}

}  // namespace postern::tls
