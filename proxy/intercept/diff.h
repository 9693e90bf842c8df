// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "proxy/intercept/rules.h"

namespace postern::intercept {

// How much of a rule is compared.
enum class Depth : uint8_t {
  kComments,  // what Postern wrote beside it
  kContents,  // and what it does, as nft prints it
};

// The differences between two listings of the table of that name (nft's JSON): "- ..." for what is
// wanted and not there, "+ ..." for what is there and not wanted, in the order of evaluation. What
// was counted, and handles, do not matter. InvalidArgument: not nft's JSON. Pure.
absl::StatusOr<std::vector<std::string>> DiffListings(std::string_view wanted,
                                                      std::string_view found,
                                                      const std::string& name, Depth depth);

// What should be in force, worked out once, to be compared with what is. Blocks as nft does; its
// functions on one thread.
class Expectation {
 public:
  // Errors of RenderUp and RunNft. Where this process may not make a network namespace (to see how
  // nft prints the rules) it goes by comments.
  static absl::StatusOr<Expectation> Of(const InterceptConfig& config);

  Depth depth() const { return depth_; }
  // Rules and, with tproxy, routing; empty: all is as it should be.
  absl::StatusOr<std::vector<std::string>> Differences() const;

 private:
  Expectation(const InterceptConfig& config, std::string listing, Depth depth)
      : config_(config), listing_(std::move(listing)), depth_(depth) {}

  InterceptConfig config_;
  std::string listing_;
  Depth depth_;
};

}  // namespace postern::intercept
