// How tokens come into the index: those of the prompt, then what was decoded, a horizon at a time.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <type_traits>

#include "decode/head_state.hpp"
#include "decode/plan.hpp"

namespace keyseek {
namespace {

// Positions that choose the pinned tokens: SnapKV's observation window.
constexpr std::size_t kPinningQueries = 64;

/// Rows of f32, f16 or bf16 in 8 bits, each over its largest element; appends the scales.
AnyMatrix in_8_bits(AnyMatrixView rows, std::vector<float>& scales) {
  AlignedVector<std::byte> codes(rows.rows * rows.cols);
  std::vector<float> row(rows.cols);
  for (std::size_t i = 0; i < rows.rows; ++i) {
    rows.copy_row(i, row.data());
    float largest = 0;
    for (const float x : row) largest = std::max(largest, std::abs(x));
    const float scale = std::isnormal(largest / 127.0F) ? largest / 127.0F : 1.0F;
    for (std::size_t j = 0; j < rows.cols; ++j) {
      const auto code = static_cast<std::int8_t>(std::lround(row[j] / scale));
      codes[i * rows.cols + j] = static_cast<std::byte>(code);
    }
    scales.push_back(scale);
  }
  return {SharedArray<std::byte>(std::move(codes)), Dtype::i8, rows.rows, rows.cols};
}

}  // namespace

void HeadCache::State::take_prompt(const AnyMatrix& keys, const AnyMatrix& values,
                                   MatrixView<float> queries, const Execution& run) {
  const std::size_t n = keys.rows(), first_rest = std::min(params.sink, n);
  pin(keys.view(), values.view(), queries);
  std::vector<std::size_t> first(first_rest), rest;
  std::iota(first.begin(), first.end(), std::size_t{0});
  first.insert(first.end(), pinned.begin(), pinned.end());
  for (std::size_t i = first_rest, next = 0; i < n; ++i) {
    if (next < pinned.size() && pinned[next] == i) {
      ++next;
    } else {
      rest.push_back(i);
    }
  }
  sink_keys = keys.at(first);
  sink_values = values.at(first);
  recent_keys = StoredRows(keys.at(rest));
  recent_values = StoredRows(values.at(rest));
  indexed_keys = keys.at({});
  indexed_values =
      params.int8_values ? in_8_bits(values.view().slice(0, 0), value_scales) : values.at({});
  const std::size_t positions = queries.rows / group;
  std::vector<std::size_t> at(positions);
  std::iota(at.begin(), at.end(), n - positions);
  refresh_with(queries, at, run);
}

/// Chooses the tokens to pin: those between sink and window that the window's queries, at most
/// kPinningQueries of them, give the most attention.
void HeadCache::State::pin(AnyMatrixView keys, AnyMatrixView values, MatrixView<float> queries) {
  const std::size_t n = keys.rows, between = n - std::min(n, params.sink);
  if (params.pinned == 0 || queries.empty() || between <= params.window) return;
  const std::size_t count = between - params.window;
  const std::size_t asked =
      std::min({kPinningQueries, params.window, queries.rows / group}) * group;
  const MatrixView<float> newest = queries.slice(queries.rows - asked, asked);
  Partial none;
  none.reset(asked, values.cols, params.null_logits);
  const Observations seen =
      observe(newest, group, none, keys.slice(params.sink, count),
              {values.slice(params.sink, count)}, params.logits(), {.top = 0}, {.threads = 1});
  std::vector<double> mass(count);
  for (std::size_t i = 0; i < count; ++i)
    mass[i] = std::accumulate(seen.mass.row(i), seen.mass.row(i) + group, 0.0);
  std::vector<std::size_t> order(count);
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto end = order.begin() + static_cast<std::ptrdiff_t>(std::min(params.pinned, count));
  std::partial_sort(order.begin(), end, order.end(), [&](std::size_t a, std::size_t b) {
    return mass[a] != mass[b] ? mass[a] > mass[b] : a < b;
  });
  pinned.assign(order.begin(), end);
  std::sort(pinned.begin(), pinned.end());
  for (std::size_t& position : pinned) position += params.sink;
}

/// The present values with the moved ones as well; appends the scales of those in 8 bits.
AnyMatrix HeadCache::State::grown_values(const AnyMatrix& keys, AnyMatrixView moved,
                                         std::vector<float>& scales) const {
  if (params.int8_values) return indexed_values.joined(in_8_bits(moved, scales).view());
  // A token's value is in the slot of its key: slots are kept once.
  return pages ? indexed_values.in_slots_of(keys) : indexed_values.joined(moved);
}

/// The present index with the moved keys as well, or none where it has to be built anew.
HeadIndex HeadCache::State::grown_index(AnyMatrixView moved_keys, MatrixView<float> queries,
                                        std::span<const std::size_t> positions,
                                        const Execution& run) const {
  if (!index.can_append() || moved_keys.rows == 0) return {};
  HeadIndex grown = index;
  Matrix<float> training(queries.rows, dim);
  for (std::size_t i = 0; i < queries.rows; ++i) std::copy_n(queries.row(i), dim, training.row(i));
  if (!positions.empty() && params.shift) {
    training = sample_training_queries(queries, positions, group, params.rope,
                                       {.now = tokens(),
                                        .horizon = params.horizon,
                                        .share = 1.0,
                                        .seed = params.seed,
                                        .tuning_runs = 0})
                   .train;
  }
  grown.append(moved_keys, training, run);
  return grown;
}

void HeadCache::State::refresh(const Execution& run) {
  if (!can_refresh()) return;
  const MatrixView<float> queries = {remembered.data(), remembered_at.size() * group, dim};
  refresh_with(queries, remembered_at, run);
}

/// A plan that retrieves is not given up because there are too few queries for the next one.
bool HeadCache::State::can_refresh() const noexcept {
  return plan.retriever == Retriever::everything || remembered_at.size() >= kLeastPositions;
}

void HeadCache::State::refresh_with(MatrixView<float> queries,
                                    std::span<const std::size_t> positions, const Execution& run) {
  const std::size_t recent = recent_keys.rows();
  const std::size_t moved = recent > params.window ? recent - params.window : 0;
  const std::size_t left = recent - moved;
  const AnyMatrixView moved_keys = recent_keys.view().slice(0, moved);
  const AnyMatrixView moved_values = recent_values.view().slice(0, moved);
  // Everything new is made aside: a failure leaves the cache as it was.
  AnyMatrix new_keys = indexed_keys.joined(moved_keys);
  std::vector<float> scales = value_scales;
  AnyMatrix new_values = grown_values(new_keys, moved_values, scales);
  PlanInput input;
  input.group = group;
  input.queries = queries;
  input.positions = positions;
  input.indexed_keys = new_keys;
  input.tokens.sink = {sink_keys.view(), {sink_values.view()}};
  input.tokens.indexed = {new_keys.view(),
                          {new_values.view(), scales.empty() ? nullptr : scales.data()}};
  input.tokens.recent = {recent_keys.view().slice(moved, left),
                         {recent_values.view().slice(moved, left)}};
  input.tokens.pinned = pinned;
  Planned planned = make_plan(input, params, grown_index(moved_keys, queries, positions, run), run);
  StoredRows left_keys = recent_keys.without_front(moved);
  StoredRows left_values = recent_values.without_front(moved);
  // The index has a copy of the keys: kept once.
  new_keys = planned.index.keys_or(new_keys);

  static_assert(
      std::is_nothrow_move_assignable_v<HeadIndex> && std::is_nothrow_move_assignable_v<Tail> &&
      std::is_nothrow_move_assignable_v<AnyMatrix> &&
      std::is_nothrow_move_assignable_v<StoredRows> && std::is_nothrow_move_assignable_v<Attended>);
  plan = planned.plan;
  index = std::move(planned.index);
  tail = std::move(planned.tail);
  indexed_keys = std::move(new_keys);
  indexed_values = std::move(new_values);
  value_scales = std::move(scales);
  recent_keys = std::move(left_keys);
  recent_values = std::move(left_values);
  remembered.clear();
  remembered_at.clear();
  last.hits = {};
  before = {};
}

}  // namespace keyseek
