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

MatrixView<float> DecodeScratch::State::widened(AnyMatrixView rows) {
  require(rows.dtype != Dtype::i8, "queries are i8: int8 has no scale here");
  if (rows.dtype == Dtype::f32 && rows.slots == nullptr)
    return {static_cast<const float*>(rows.data), rows.rows, rows.cols, rows.stride};
  if (queries.rows() != rows.rows || queries.cols() != rows.cols)
    queries = Matrix<float>(rows.rows, rows.cols);
  for (std::size_t i = 0; i < rows.rows; ++i) rows.copy_row(i, queries.row(i));
  return queries;
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
  // The values of borrowed tokens are in the slots of their keys.
  const bool shared = indexed_values.is_borrowed();
  return indexed_keys.owned_bytes() + index.extra_bytes() +
         (shared ? 0 : indexed_values.owned_bytes()) + value_scales.size() * sizeof(float) +
         sink_keys.owned_bytes() + sink_values.owned_bytes() + (pages ? pages->bytes() : 0) +
         pinned.size() * sizeof(std::size_t) + recent_keys.bytes() + recent_values.bytes() +
         tail.bytes() + remembered.size() * sizeof(float) +
         remembered_at.size() * sizeof(std::size_t) + (pending ? pending->bytes() : 0);
}

}  // namespace keyseek
