// SPDX-License-Identifier: Apache-2.0
#include "proxy/tls/running_hash.h"

#include <gtest/gtest.h>
#include <openssl/evp.h>

#include <string>
#include <vector>

namespace postern::tls {
namespace {

std::string Expected(size_t digest_bytes, const std::string& text) {
  std::vector<uint8_t> digest(EVP_MAX_MD_SIZE);
  unsigned int size = 0;
  const EVP_MD* md = digest_bytes == RunningHash::kSha256Bytes ? EVP_sha256() : EVP_sha384();
  EXPECT_EQ(EVP_Digest(text.data(), text.size(), digest.data(), &size, md, nullptr), 1);
  digest.resize(size);
  return base::ToHex(digest);
}

std::string HexOf(const RunningHash& hash) {
  return base::ToHex(hash.Peek().bytes());
}

TEST(RunningHashTest, IsWhatEvpSaysOfEachLength) {
  for (const size_t bytes : {RunningHash::kSha256Bytes, RunningHash::kSha384Bytes}) {
    for (const size_t length : {0, 1, 55, 56, 63, 64, 65, 111, 112, 127, 128, 129, 5000}) {
      const std::string text(length, 'x');
      RunningHash hash(bytes);
      hash.Update(base::AsBytes(text));
      EXPECT_EQ(HexOf(hash), Expected(bytes, text)) << bytes << " " << length;
    }
  }
}

TEST(RunningHashTest, GoesOnAfterItWasAskedAndAfterItWasPutAway) {
  for (const size_t bytes : {RunningHash::kSha256Bytes, RunningHash::kSha384Bytes}) {
    for (const size_t length : {0, 1, 63, 64, 100, 127, 128, 3000}) {
      const std::string text(length, 'a');
      RunningHash hash(bytes);
      hash.Update(base::AsBytes(text));
      EXPECT_EQ(HexOf(hash), Expected(bytes, text));
      const std::vector<uint8_t> saved = hash.Save();
      EXPECT_LE(saved.size(), bytes == RunningHash::kSha256Bytes ? 104U : 208U);
      RunningHash again = RunningHash::Restore(saved);
      EXPECT_EQ(HexOf(again), Expected(bytes, text));
      again.Update(base::AsBytes("and more"));
      hash.Update(base::AsBytes("and more"));
      EXPECT_EQ(HexOf(again), Expected(bytes, text + "and more"));
      EXPECT_EQ(HexOf(again), HexOf(hash));
    }
  }
}

}  // namespace
}  // namespace postern::tls
