// How tokens come to a head one after the other, how its newest ones go, and how all are read.
#include <algorithm>

#include "base/fail.hpp"
#include "decode/head_state.hpp"
#include "score/range.hpp"

namespace keyseek {
namespace {

// Positions of a horizon whose queries are kept for the next refresh, at most; more would add
// memory, not recall.
constexpr std::size_t kRemembered = 256;

/// Room for `more` elements, which grows as push_back's does.
template <class T>
void make_room(std::vector<T>& values, std::size_t more) {
  const std::size_t needed = values.size() + more;
  if (needed > values.capacity()) values.reserve(std::max(2 * values.capacity(), needed));
}

/// Of new positions every so many are remembered, of the newest so many of them.
struct Remembering {
  explicit Remembering(std::size_t horizon)
      : every(std::max<std::size_t>(1, horizon / kRemembered)), newest(every * kRemembered) {}

  /// The first one of [first, last), if any.
  [[nodiscard]] std::size_t begin(std::size_t first, std::size_t last) const {
    const std::size_t from = last - first > newest ? last - newest : first;
    return from == 0 ? 0 : ((from - 1) / every + 1) * every;
  }

  std::size_t every, newest;
};

void check_rows(const StoredRows& stored, MatrixView<float> rows, const char* one, const char* many,
                float most) {
  if (rows.rows == 1) {
    stored.check(rows.row(0), one);
  } else {
    for (std::size_t i = 0; i < rows.rows; ++i)
      stored.check(rows.row(i), fmt::format("{} row {}", many, i));
  }
  require_range(AnyMatrixView::of(rows), rows.rows == 1 ? one : many, most);
}

void check_written(AnyMatrixView rows, const char* name, float most) {
  require_range(rows, fmt::format("the {} written", name), most);
}

/// Rows in the type they are stored in, those in 8 bits in that of `dtype`.
void copy_as_stored(ValuesView from, Dtype dtype, std::byte* to) {
  if (from.scales == nullptr) {
    copy_rows(from.rows, to);
    return;
  }
  const std::size_t count = from.rows.rows, cols = from.rows.cols;
  std::vector<float> row(cols);
  for (std::size_t i = 0; i < count; ++i) {
    from.rows.copy_row(i, row.data());
    for (float& x : row) x *= from.scales[i];
    store_row(row.data(), cols, dtype, to + i * cols * size_of(dtype));
  }
}

}  // namespace

void HeadCache::State::require_own() const {
  require(!pages, "the head borrows its tokens: write them into its pages, then announce them");
}

void HeadCache::State::make_room_for(std::size_t count, MatrixView<float> queries) {
  recent_keys.make_room(count);
  recent_values.make_room(count);
  if (!queries.empty()) make_room_to_remember(std::min(count, kRemembered));
}

void HeadCache::State::take_tokens(MatrixView<float> keys, MatrixView<float> values,
                                   MatrixView<float> queries) {
  require_own();
  if (keys.rows == 0) return;
  check_rows(recent_keys, keys, "key", "keys", kLargestElement);
  check_rows(recent_values, values, "value", "values", kLargestValue);
  const std::size_t count = keys.rows, first = tokens();
  refresh_if_due();
  make_room_for(count, queries);
  for (std::size_t i = 0; i < count; ++i) {
    recent_keys.append(keys.row(i));
    recent_values.append(values.row(i));
  }
  if (!queries.empty()) remember(queries, first, count);
}

void HeadCache::State::take_written(std::size_t count, std::span<const Id> more,
                                    MatrixView<float> queries) {
  require(pages.has_value(), "the head has tokens of its own: append them");
  const std::size_t first = tokens();
  require(count < kNoId - first, "count is {}, too many behind {} tokens", count, first);
  pages->require_new(more);
  pages->require_room(first + count, more);
  const AlignedVector<Id> slots = pages->slots(first, count, more);
  check_written(recent_keys.at(slots), "keys", kLargestElement);
  check_written(recent_values.at(slots), "values", kLargestValue);
  if (count > 0) refresh_if_due();
  pages->make_room(more.size());
  make_room_for(count, queries);
  pages->add(more);
  for (const Id slot : slots) {
    recent_keys.append(slot);
    recent_values.append(slot);
  }
  if (!queries.empty()) remember(queries, first, count);
}

void HeadCache::State::undo_written(std::size_t count) noexcept {
  drop_tokens(count);
  pages->undo_add();
}

void HeadCache::State::drop_tokens(std::size_t count) noexcept {
  recent_keys.drop_back(count);
  recent_values.drop_back(count);
  while (!remembered_at.empty() && remembered_at.back() >= tokens()) remembered_at.pop_back();
  remembered.resize(remembered_at.size() * group * dim);
}

void HeadCache::State::copy_tokens(void* keys, void* values) const {
  const Tokens all = pieces();
  auto* key = static_cast<std::byte*>(keys);
  auto* value = static_cast<std::byte*>(values);
  const Dtype key_type = recent_keys.dtype(), value_type = recent_values.dtype();
  for (const Tokens::Run& run : all.by_position()) {
    copy_as_stored({run.piece->keys.slice(run.first, run.count)}, key_type, key);
    copy_as_stored(run.piece->values.slice(run.first, run.count), value_type, value);
    key += run.count * dim * size_of(key_type);
    value += run.count * value_dim * size_of(value_type);
  }
}

void HeadCache::State::make_room_to_remember(std::size_t positions) {
  make_room(remembered, positions * group * dim);
  make_room(remembered_at, positions);
}

/// Some of `queries` [count * group, d], for which there is room.
void HeadCache::State::remember(MatrixView<float> queries, std::size_t first,
                                std::size_t count) noexcept {
  const Remembering which(params.horizon);
  const std::size_t end = first + count;
  for (std::size_t position = which.begin(first, end); position < end; position += which.every) {
    // Of a position that is attended more than once, the first queries.
    if (!remembered_at.empty() && remembered_at.back() >= position) continue;
    const MatrixView<float> asked = queries.slice((position - first) * group, group);
    for (std::size_t g = 0; g < group; ++g)
      remembered.insert(remembered.end(), asked.row(g), asked.row(g) + dim);
    remembered_at.push_back(position);
  }
}

}  // namespace keyseek
