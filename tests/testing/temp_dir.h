// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace postern::testing {

// A directory of one test: 0700, below TMPDIR (/tmp without it), removed with all that is in it
// when this dies. Aborts the test program if it cannot be made.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::string& path() const { return path_; }
  // "<directory>/<name>"
  std::string Path(std::string_view name) const;
  // Writes a file of this directory and returns its path.
  std::string Write(std::string_view name, std::string_view content, int mode = 0600) const;

 private:
  std::string path_;
};

}  // namespace postern::testing
