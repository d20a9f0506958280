// How rows are rounded to the type they are stored in, and what is refused before.
#include "decode/stored_rows.hpp"

#include <cmath>
#include <cstring>

#include "base/fail.hpp"

namespace keyseek {
namespace {

float as_stored(float x, Dtype dtype) {
  switch (dtype) {
    case Dtype::f16:
      return to_float(to_half(x));
    case Dtype::bf16:
      return to_float(to_bfloat16(x));
    default:
      return x;
  }
}

template <class T>
void store(const float* row, std::size_t cols, T (*convert)(float), std::byte* to) {
  for (std::size_t j = 0; j < cols; ++j) {
    const T stored = convert(row[j]);
    std::memcpy(to + j * sizeof(T), &stored, sizeof(T));
  }
}

}  // namespace

void store_row(const float* row, std::size_t cols, Dtype dtype, std::byte* to) noexcept {
  if (dtype == Dtype::f16) store<Half>(row, cols, to_half, to);
  if (dtype == Dtype::bf16) store<BFloat16>(row, cols, to_bfloat16, to);
  if (dtype == Dtype::f32) std::memcpy(to, row, cols * sizeof(float));
}

StoredRows::StoredRows(const AnyMatrix& rows) : none_(rows.first(0)), rows_(rows.rows()) {
  const AnyMatrixView all = rows.view();
  if (is_borrowed()) {
    slots_.assign(all.slots, all.slots + rows_);
    return;
  }
  none_ = AnyMatrix({}, rows.dtype(), 0, rows.cols());  // what is copied need not live on
  data_.resize(rows.bytes());
  copy_rows(all, data_.data());
}

void StoredRows::check(const float* row, std::string_view name) const {
  for (std::size_t j = 0; j < none_.cols(); ++j) {
    if (!std::isfinite(row[j]))
      fail(ErrorCode::not_finite, "{} holds {} in element {}", name, row[j], j);
    if (!std::isfinite(as_stored(row[j], dtype())))
      fail(ErrorCode::not_finite, "{} holds {} in element {}, too large for {}", name, row[j], j,
           to_string(dtype()));
  }
}

void StoredRows::make_room(std::size_t count) {
  const std::size_t rows = rows_ + count;
  if (is_borrowed()) {
    if (slots_.size() < rows) slots_.resize(rows);
  } else if (data_.size() < rows * row_bytes()) {
    data_.resize(rows * row_bytes());
  }
}

void StoredRows::append(const float* row) noexcept {
  store_row(row, none_.cols(), dtype(), data_.data() + rows_ * row_bytes());
  ++rows_;
}

void StoredRows::append(Id slot) noexcept { slots_[rows_++] = slot; }

StoredRows StoredRows::without_front(std::size_t count) const {
  StoredRows rest;
  rest.none_ = none_;
  rest.rows_ = rows_ - count;
  if (is_borrowed()) {
    rest.slots_.assign(slots_.data() + count, slots_.data() + rows_);
  } else {
    rest.data_.assign(data_.data() + count * row_bytes(), data_.data() + rows_ * row_bytes());
  }
  return rest;
}

AnyMatrixView StoredRows::view() const {
  if (is_borrowed()) return at({slots_.data(), rows_});
  return {data_.data(), dtype(), rows_, none_.cols(), none_.cols()};
}

AnyMatrixView StoredRows::at(std::span<const Id> slots) const {
  AnyMatrixView rows = none_.view();
  rows.slots = slots.data();
  rows.rows = slots.size();
  return rows;
}

}  // namespace keyseek
