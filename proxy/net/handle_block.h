// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <uv.h>

#include <cstdint>

namespace postern::net {

// Heap memory around one libuv handle. The C++ object that made it (a Stream, a Timer, a Listener)
// may be destroyed at any moment, also inside a callback; libuv needs the memory until its close
// callback. So each of the two gives the block up, and the second one frees it. Loop thread only.
//
// The handle's `data` points to its block; a handle without a block (the loop's own) has none.
class HandleBlock {
 public:
  HandleBlock() = default;
  virtual ~HandleBlock() = default;
  HandleBlock(const HandleBlock&) = delete;
  HandleBlock& operator=(const HandleBlock&) = delete;

  // Whether libuv may be called with the handle and callbacks have somebody to go to.
  bool usable() const noexcept { return state_ == State::kOwned; }

  // The owner has no more use for the block. Do not touch it afterwards, except from inside one of
  // its own libuv callbacks, which may still ask usable().
  void Release() noexcept;

  // What the loop's destructor does to a handle that is still open: the owner keeps the memory.
  static void CloseForLoop(uv_handle_t* handle) noexcept;

 protected:
  virtual uv_handle_t* handle() noexcept = 0;

 private:
  enum class State : uint8_t {
    kOwned,     // the owner lives and so does the loop
    kReleased,  // the owner is gone; the close callback frees the block
    kClosed,    // the loop is gone; Release frees the block
  };
  static void OnClosed(uv_handle_t* handle) noexcept;

  State state_ = State::kOwned;
};

}  // namespace postern::net
