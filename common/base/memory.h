// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace postern::base {

// Lets malloc divide memory into at most `arenas` parts that do not share what is free; by default
// it makes one for each of the first threads. Call once, before other threads exist.
void LimitArenas(int arenas);

// Gives the system back what malloc holds and nobody uses. It walks the heap, and a thread that
// allocates meanwhile waits. Any thread.
void GiveBackFreeMemory();

// GiveBackFreeMemory, and lets go of the program's and its libraries' unwritten pages: what only
// the start has needed (relocations, flags, the first handshake) is not mapped again; the rest
// comes back from the page cache with its next use. For once after the start. Any thread. A
// breakpoint that a debugger has set by then is lost.
void GiveBackStartMemory();

}  // namespace postern::base
