// SPDX-License-Identifier: Apache-2.0
#include "common/x509/chain_cache.h"

#include <openssl/evp.h>

#include <utility>

#include "common/x509/openssl_error.h"
#include "common/x509/openssl_ptr.h"

namespace postern::x509 {
namespace {

// The verifier refuses longer ones before any work (chain_verifier.cc).
constexpr int kMostPresented = 16;

using MdPtr = OpensslPtr<EVP_MD, EVP_MD_free>;
using MdCtxPtr = OpensslPtr<EVP_MD_CTX, EVP_MD_CTX_free>;

// Fetched once: looking an algorithm up costs more than hashing a chain.
const EVP_MD* FetchedSha256() {
  static const MdPtr md(EVP_MD_fetch(nullptr, "SHA2-256", nullptr));
  return md.get();
}

// A certificate's encoding says where it ends, so that two chains cannot run into the same bytes.
bool Add(EVP_MD_CTX* ctx, const X509* certificate) {
  unsigned char* der = nullptr;
  const int size = i2d_X509(certificate, &der);
  if (size <= 0) {
    return false;
  }
  const bool added = EVP_DigestUpdate(ctx, der, static_cast<size_t>(size)) == 1;
  OPENSSL_free(der);
  return added;
}

}  // namespace

std::optional<base::Sha256Digest> DigestOfPresented(X509* leaf, STACK_OF(X509) * presented) {
  const ErrorQueueGuard guard;
  const int count = sk_X509_num(presented);  // a null stack has -1
  const MdCtxPtr ctx(EVP_MD_CTX_new());
  if (leaf == nullptr || count > kMostPresented || ctx == nullptr || FetchedSha256() == nullptr ||
      EVP_DigestInit_ex2(ctx.get(), FetchedSha256(), nullptr) != 1 || !Add(ctx.get(), leaf)) {
    return std::nullopt;
  }
  for (int i = 0; i < count; ++i) {
    const X509* const certificate = sk_X509_value(presented, i);
    // OpenSSL hands the leaf over once more, in front of the rest.
    if ((i > 0 || certificate != leaf) && !Add(ctx.get(), certificate)) {
      return std::nullopt;
    }
  }
  base::Sha256Digest digest{};
  unsigned int size = 0;
  if (EVP_DigestFinal_ex(ctx.get(), digest.data(), &size) != 1 || size != digest.size()) {
    return std::nullopt;
  }
  return digest;
}

const VerifiedPeer* ChainCache::Find(const base::Sha256Digest& presented, absl::Time now) {
  auto found = young_.find(presented);
  if (found == young_.end()) {
    const auto older = old_.find(presented);
    if (older == old_.end()) {
      return nullptr;
    }
    const VerifiedPeer peer = older->second;
    old_.erase(older);
    Add(presented, peer);
    found = young_.find(presented);
  }
  const VerifiedPeer& peer = found->second;
  return peer.not_before <= now && now < peer.not_after ? &peer : nullptr;
}

void ChainCache::Add(const base::Sha256Digest& presented, const VerifiedPeer& peer) {
  if (young_.size() >= generation_) {
    old_ = std::exchange(young_, {});
  }
  young_.insert_or_assign(presented, peer);
}

void ChainCache::Clear() {
  young_.clear();
  old_.clear();
}

}  // namespace postern::x509
