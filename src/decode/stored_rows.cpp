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

StoredRows::StoredRows(AnyMatrixView rows)
    : dtype_(rows.dtype), rows_(rows.rows), cols_(rows.cols) {
  const std::size_t row = row_bytes();
  data_.resize(rows_ * row);
  for (std::size_t i = 0; i < rows_; ++i) std::memcpy(data_.data() + i * row, rows.row(i), row);
}

void StoredRows::check(const float* row, std::string_view name) const {
  for (std::size_t j = 0; j < cols_; ++j) {
    if (!std::isfinite(row[j]))
      fail(ErrorCode::not_finite, "{} holds {} in element {}", name, row[j], j);
    if (!std::isfinite(as_stored(row[j], dtype_)))
      fail(ErrorCode::not_finite, "{} holds {} in element {}, too large for {}", name, row[j], j,
           to_string(dtype_));
  }
}

void StoredRows::make_room(std::size_t count) {
  const std::size_t needed = bytes() + count * row_bytes();
  if (data_.size() < needed) data_.resize(needed);
}

void StoredRows::append(const float* row) noexcept {
  store_row(row, cols_, dtype_, data_.data() + bytes());
  ++rows_;
}

StoredRows StoredRows::without_front(std::size_t count) const {
  return StoredRows(view().slice(count, rows_ - count));
}

AnyMatrixView StoredRows::view() const { return {data_.data(), dtype_, rows_, cols_, cols_}; }

}  // namespace keyseek
