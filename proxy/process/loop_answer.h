// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <future>
#include <memory>
#include <optional>
#include <utility>

namespace postern::process {

// Asks another thread's loop, and waits for what it says. `ask` gets a function that takes the
// answer once, on any thread, and posts the question together with it. Nullopt: nothing came in
// time; what comes later is dropped. Never on the thread that is to answer.
template <typename Answer, typename Ask>
std::optional<Answer> AwaitAnswer(std::chrono::milliseconds deadline, const Ask& ask) {
  // Shared, so that an answer that comes after the deadline still finds its promise.
  auto promise = std::make_shared<std::promise<Answer>>();
  std::future<Answer> answer = promise->get_future();
  ask([promise](Answer value) { promise->set_value(std::move(value)); });
  return answer.wait_for(deadline) == std::future_status::ready ? std::optional(answer.get())
                                                                : std::nullopt;
}

}  // namespace postern::process
