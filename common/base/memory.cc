// SPDX-License-Identifier: Apache-2.0
#include "common/base/memory.h"

#include <link.h>
#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>

#include "common/base/sanitized.h"

namespace postern::base {
namespace {

constexpr int kKeptOnTop = 512 << 10;

// Only segments that cannot be written: the pages of the others, relocated ones included, are not
// what their file holds.
int LetGoOfPages(dl_phdr_info* object, size_t /*size*/, void* /*data*/) noexcept {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  for (int i = 0; i < object->dlpi_phnum; ++i) {
    const ElfW(Phdr)& segment = object->dlpi_phdr[i];
    if (segment.p_type != PT_LOAD || (segment.p_flags & PF_W) != 0) {
      continue;
    }
    const uintptr_t begin = (object->dlpi_addr + segment.p_vaddr) & ~(page - 1);
    const uintptr_t end = (object->dlpi_addr + segment.p_vaddr + segment.p_memsz) & ~(page - 1);
    if (end > begin) {
      // Advice: what is refused (locked memory, say) stays as it is.
      madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
    }
  }
  return 0;
}

}  // namespace

void LimitArenas(int arenas) {
  mallopt(M_ARENA_MAX, arenas);
  // By default 128 KiB, which the buffers of two handshakes are: each would give pages back to the
  // system and fault them in again.
  mallopt(M_TRIM_THRESHOLD, kKeptOnTop);
}

void GiveBackFreeMemory() {
  malloc_trim(0);
}

void GiveBackStartMemory() {
  GiveBackFreeMemory();
  // A sanitizer's own code and tables are in use all the time.
  if (!kSanitized) {
    dl_iterate_phdr(&LetGoOfPages, nullptr);
  }
}

}  // namespace postern::base
