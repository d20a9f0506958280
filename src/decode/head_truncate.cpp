// Taking tokens back, recent or indexed: what is left is made aside, then kept.
#include <algorithm>
#include <utility>

#include "base/fail.hpp"
#include "decode/head_state.hpp"
#include "decode/plan.hpp"

namespace keyseek {

HeadCache::State::Cut HeadCache::State::cut_to(std::size_t kept) const {
  require(kept >= 1, "tokens is 0: to begin anew, prefill another head");
  require(kept <= tokens(), "tokens is {}, the head has {}", kept, tokens());
  Cut cut;
  const std::size_t before_recent = tokens() - recent_keys.rows();
  if (kept >= before_recent) {
    cut.recent = kept - before_recent;
    return cut;
  }
  cut.is_deep = true;
  const auto end = std::lower_bound(pinned.begin(), pinned.end(), kept);
  cut.pinned.assign(pinned.begin(), end);
  const std::size_t exact = std::min(kept, sink() + cut.pinned.size()), left = kept - exact;
  cut.sink_keys = sink_keys.first(exact);
  cut.sink_values = sink_values.first(exact);
  cut.indexed_keys = indexed_keys.first(left);
  cut.indexed_values = indexed_values.first(left);
  if (!value_scales.empty())
    cut.value_scales.assign(value_scales.begin(),
                            value_scales.begin() + static_cast<std::ptrdiff_t>(left));
  plan_cut(cut);
  return cut;
}

/// Whether a search without a tail keeps what was promised, or was asked for, with fewer keys.
bool HeadCache::State::searches_without_tail(std::size_t indexed) const {
  if (!kind_of(plan.retriever) || indexed < std::max<std::size_t>(1, params.least_indexed))
    return false;
  return tail.empty() || params.given.has_value() ||
         plan.error_without_tail <= params.safety * params.max_error;
}

/// What attends to the indexed tokens that are left. A tail stands for tokens that were there when
/// it was trained: where some are not any more, so is the tail.
void HeadCache::State::plan_cut(Cut& cut) const {
  const std::size_t left = cut.indexed_keys.rows();
  if (left == indexed()) {
    cut.index = index;
    cut.tail = tail;
    cut.plan = plan;
    return;
  }
  const float* scales = cut.value_scales.empty() ? nullptr : cut.value_scales.data();
  const Tokens::Piece piece = {cut.indexed_keys.view(), {cut.indexed_values.view(), scales}};
  if (!searches_without_tail(left)) {
    cut.plan = plan_of_everything(piece);
    return;
  }
  cut.index = index.truncated(left);
  cut.indexed_keys = cut.index.keys_or(cut.indexed_keys);
  cut.plan = plan;
  cut.plan.stop.k = std::min(plan.stop.k, left);
  cut.plan.stop.least = std::min(plan.stop.least, left);
  cut.plan.tail_vectors = 0;
  cut.plan.expected_error = plan.error_without_tail;
  cut.plan.keys_per_query -= static_cast<double>(tail.vectors());
  cut.plan.bytes_per_step = (plan.bytes_per_step - static_cast<double>(tail.bytes())) *
                            static_cast<double>(left) / static_cast<double>(indexed());
}

void HeadCache::State::keep(Cut cut) noexcept {
  drop_tokens(recent_keys.rows() - cut.recent);
  if (cut.is_deep) {
    keep_deep(std::move(cut));
  } else {
    forget_lost_refresh();
  }
  if (pages) pages->keep_tokens(tokens());
}

void HeadCache::State::keep_deep(Cut cut) noexcept {
  sink_keys = std::move(cut.sink_keys);
  sink_values = std::move(cut.sink_values);
  pinned = std::move(cut.pinned);
  indexed_keys = std::move(cut.indexed_keys);
  indexed_values = std::move(cut.indexed_values);
  value_scales = std::move(cut.value_scales);
  index = std::move(cut.index);
  tail = std::move(cut.tail);
  plan = cut.plan;
  // What was found last may be among what went.
  last.hits.group = before.hits.group = 0;
  drop_tokens(0);
  forget_lost_refresh();
}

}  // namespace keyseek
