// A refresh beside the steps: begun when a horizon is full, adopted some tokens later.
#include <algorithm>
#include <memory>
#include <type_traits>
#include <utility>

#include "decode/head_state.hpp"
#include "decode/refresh_task.hpp"

namespace keyseek {

void HeadCache::State::refresh_if_due() {
  if (pending && tokens() - pending->began() >= params.refresh_delay) adopt_refresh();
  // Not a sum: a window of any size means that nothing is indexed.
  const std::size_t recent = recent_keys.rows();
  if (pending || recent < params.window || recent - params.window < params.horizon) return;
  if (params.refresh_delay == 0)
    refresh({.threads = 1});
  else
    begin_refresh();
}

void HeadCache::State::begin_refresh() {
  if (!pending && can_refresh()) pending = std::make_shared<RefreshTask>(*this);
}

/// What came since then stays as it is: not indexed, its queries remembered.
void HeadCache::State::adopt_refresh() {
  if (!pending) return;
  const std::shared_ptr<const State> planned = pending->result();
  const std::size_t moved = planned->indexed() - indexed();
  StoredRows left_keys = recent_keys.without_front(moved);
  StoredRows left_values = recent_values.without_front(moved);
  const auto first = std::lower_bound(remembered_at.begin(), remembered_at.end(), pending->began());
  const auto seen = (first - remembered_at.begin()) * static_cast<std::ptrdiff_t>(group * dim);
  std::vector<float> later(remembered.begin() + seen, remembered.end());
  std::vector<std::size_t> later_at(first, remembered_at.end());
  HeadIndex new_index = planned->index;
  Tail new_tail = planned->tail;
  AnyMatrix new_keys = planned->indexed_keys, new_values = planned->indexed_values;
  std::vector<float> scales = planned->value_scales;

  static_assert(std::is_nothrow_move_assignable_v<HeadIndex> &&
                std::is_nothrow_move_assignable_v<Tail> &&
                std::is_nothrow_move_assignable_v<AnyMatrix> &&
                std::is_nothrow_move_assignable_v<StoredRows>);
  plan = planned->plan;
  index = std::move(new_index);
  tail = std::move(new_tail);
  indexed_keys = std::move(new_keys);
  indexed_values = std::move(new_values);
  value_scales = std::move(scales);
  recent_keys = std::move(left_keys);
  recent_values = std::move(left_values);
  remembered = std::move(later);
  remembered_at = std::move(later_at);
  last.hits = {};
  before = {};
  pending.reset();
}

void HeadCache::State::forget_lost_refresh() noexcept {
  if (pending && tokens() < pending->began()) pending.reset();
}

}  // namespace keyseek
