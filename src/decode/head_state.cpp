// Who may see what a head is made of, and how much of it there is.
#include "decode/head_state.hpp"

#include "base/fail.hpp"
#include "decode/refresh_task.hpp"

namespace keyseek {

DecodeScratch::DecodeScratch() noexcept = default;
DecodeScratch::DecodeScratch(DecodeScratch&& other) noexcept = default;
DecodeScratch& DecodeScratch::operator=(DecodeScratch&& other) noexcept = default;
DecodeScratch::~DecodeScratch() = default;

DecodeScratch::State& DecodeScratch::State::of(DecodeScratch& scratch) {
  if (!scratch.state_) scratch.state_ = std::make_unique<State>();
  return *scratch.state_;
}

HeadCache::State& HeadCache::State::of(HeadCache& head) {
  require(head.state_ != nullptr, "the HeadCache is empty: prefill one first");
  return *head.state_;
}

const HeadCache::State& HeadCache::State::of(const HeadCache& head) {
  require(head.state_ != nullptr, "the HeadCache is empty: prefill one first");
  return *head.state_;
}

const HeadCache::State& HeadCache::State::seen(const HeadCache& head) noexcept {
  static const State kEmpty;
  return head.state_ ? *head.state_ : kEmpty;
}

Tokens HeadCache::State::pieces() const {
  return {.sink = {sink_keys.view(), {sink_values.view()}},
          .indexed = {indexed_keys.view(), values_of_indexed()},
          .recent = {recent_keys.view(), {recent_values.view()}},
          .pinned = pinned};
}

std::size_t HeadCache::State::bytes() const {
  return index.bytes_or(indexed_keys) + indexed_values.bytes() +
         value_scales.size() * sizeof(float) + sink_keys.bytes() + sink_values.bytes() +
         pinned.size() * sizeof(std::size_t) + recent_keys.bytes() + recent_values.bytes() +
         tail.bytes() + remembered.size() * sizeof(float) +
         remembered_at.size() * sizeof(std::size_t) + (pending ? pending->bytes() : 0);
}

}  // namespace keyseek
