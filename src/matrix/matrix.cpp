/// Converts elements between their types, copies rows, and looks for what is not finite.
#include "keyseek/matrix.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <utility>

#include "base/fail.hpp"

namespace keyseek {

std::string_view to_string(Dtype t) noexcept {
  switch (t) {
    case Dtype::f32:
      return "f32";
    case Dtype::f16:
      return "f16";
    case Dtype::bf16:
      return "bf16";
    case Dtype::i8:
      return "i8";
  }
  return "unknown";
}

namespace {

constexpr std::uint32_t kSignF32 = 0x80000000U;
constexpr std::uint32_t kInfinityF32 = 0x7f800000U;

/// f16 to f32 without branches, so that a loop over it vectorises.
float widen(std::uint16_t bits) noexcept {
  constexpr std::uint32_t kExponent = 0x7c00U << 13U;     // f16's exponent bits, at f32's place
  constexpr std::uint32_t kRebias = (127U - 15U) << 23U;  // difference of the exponent biases
  constexpr std::uint32_t kSmallestNormal = 113U << 23U;  // 2^-14 in f32
  const std::uint32_t sign = (bits & 0x8000U) << 16U;
  std::uint32_t magnitude = (bits & 0x7fffU) << 13U;
  const std::uint32_t exponent = magnitude & kExponent;
  magnitude += kRebias;
  magnitude += exponent == kExponent ? kRebias : 0U;  // NaN and infinity
  // A subnormal has the smallest normal's exponent, without the implicit one.
  magnitude += exponent == 0 ? 1U << 23U : 0U;
  const std::uint32_t implicit = exponent == 0 ? kSmallestNormal : 0U;
  const float value = std::bit_cast<float>(magnitude) - std::bit_cast<float>(implicit);
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) | sign);
}

float widen_bfloat(std::uint16_t bits) noexcept {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16U);
}

/// Calls f with a pointer of the type that `dtype` names.
template <class F>
decltype(auto) with_type(const void* data, Dtype dtype, F&& f) {
  switch (dtype) {
    case Dtype::f16:
      return f(static_cast<const Half*>(data));
    case Dtype::bf16:
      return f(static_cast<const BFloat16*>(data));
    case Dtype::i8:
      return f(static_cast<const std::int8_t*>(data));
    case Dtype::f32:
      break;
  }
  return f(static_cast<const float*>(data));
}

void copy_elements(const float* from, std::size_t n, float* to) noexcept {
  std::copy_n(from, n, to);
}
void copy_elements(const Half* from, std::size_t n, float* to) noexcept {
  for (std::size_t i = 0; i < n; ++i) to[i] = widen(from[i].bits);
}
void copy_elements(const BFloat16* from, std::size_t n, float* to) noexcept {
  for (std::size_t i = 0; i < n; ++i) to[i] = widen_bfloat(from[i].bits);
}
void copy_elements(const std::int8_t* from, std::size_t n, float* to) noexcept {
  for (std::size_t i = 0; i < n; ++i) to[i] = static_cast<float>(from[i]);
}

// NaN and infinity have all exponent bits set. Tested on integers and without leaving the loop
// early, so that it vectorises.
bool all_finite(const float* row, std::size_t n) noexcept {
  std::uint32_t bad = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint32_t exponent = std::bit_cast<std::uint32_t>(row[i]) & kInfinityF32;
    bad |= exponent == kInfinityF32 ? 1U : 0U;
  }
  return bad == 0;
}
template <class T>
bool all_finite_16(const T* row, std::size_t n, std::uint16_t infinity) noexcept {
  std::uint16_t largest = 0;
  for (std::size_t i = 0; i < n; ++i) {
    largest = std::max(largest, static_cast<std::uint16_t>(row[i].bits & infinity));
  }
  return largest != infinity;
}
bool all_finite(const Half* row, std::size_t n) noexcept { return all_finite_16(row, n, 0x7c00); }
bool all_finite(const BFloat16* row, std::size_t n) noexcept {
  return all_finite_16(row, n, 0x7f80);
}
bool all_finite(const std::int8_t*, std::size_t) noexcept { return true; }

// On integers as well: without the sign, bits are ordered as magnitudes are, NaN above infinity.
float magnitude(const float* row, std::size_t n) noexcept {
  std::int32_t largest = 0;
  for (std::size_t i = 0; i < n; ++i)
    largest = std::max(largest, std::bit_cast<std::int32_t>(row[i]) & 0x7fffffff);
  return std::bit_cast<float>(largest);
}
template <class T>
std::uint16_t largest_bits(const T* row, std::size_t n) noexcept {
  std::uint16_t largest = 0;
  for (std::size_t i = 0; i < n; ++i)
    largest = std::max(largest, static_cast<std::uint16_t>(row[i].bits & 0x7fffU));
  return largest;
}
float magnitude(const Half* row, std::size_t n) noexcept { return widen(largest_bits(row, n)); }
float magnitude(const BFloat16* row, std::size_t n) noexcept {
  return widen_bfloat(largest_bits(row, n));
}
float magnitude(const std::int8_t* row, std::size_t n) noexcept {
  int largest = 0;
  for (std::size_t i = 0; i < n; ++i) largest = std::max(largest, std::abs(int{row[i]}));
  return static_cast<float>(largest);
}

}  // namespace

float to_float(Half h) noexcept { return widen(h.bits); }

float to_float(BFloat16 b) noexcept { return widen_bfloat(b.bits); }

Half to_half(float f) noexcept {
  const auto bits = std::bit_cast<std::uint32_t>(f);
  const std::uint32_t sign = (bits & kSignF32) >> 16U;
  std::uint32_t magnitude = bits & ~kSignF32;
  if (magnitude > kInfinityF32) {  // NaN: the upper payload bits and the quiet bit
    magnitude = 0x7e00U | ((magnitude >> 13U) & 0x3ffU);
  } else if (magnitude >= 143U << 23U) {  // 2^16 and above
    magnitude = 0x7c00U;
  } else if (magnitude < 113U << 23U) {
    // Below 2^-14 the result counts units of 2^-24. Adding 1/2, whose unit in the last place is
    // that, lets the processor round.
    const float aligned = std::bit_cast<float>(magnitude) + 0.5F;
    magnitude = std::bit_cast<std::uint32_t>(aligned) - std::bit_cast<std::uint32_t>(0.5F);
  } else {
    // Half a unit less one, plus one when the kept part is odd: ties go to even. A carry runs
    // into the exponent, and from the largest value into infinity, as it should.
    const std::uint32_t odd = (magnitude >> 13U) & 1U;
    magnitude = (magnitude - ((127U - 15U) << 23U) + 0xfffU + odd) >> 13U;
  }
  return {static_cast<std::uint16_t>(sign | magnitude)};
}

BFloat16 to_bfloat16(float f) noexcept {
  const auto bits = std::bit_cast<std::uint32_t>(f);
  if ((bits & ~kSignF32) > kInfinityF32) {  // rounding could turn a NaN into infinity
    return {static_cast<std::uint16_t>((bits >> 16U) | 0x40U)};
  }
  const std::uint32_t odd = (bits >> 16U) & 1U;
  return {static_cast<std::uint16_t>((bits + 0x7fffU + odd) >> 16U)};
}

std::byte* copy_rows(AnyMatrixView m, std::byte* to) noexcept {
  const std::size_t row = m.row_bytes();
  if (m.rows * row == 0) return to;  // there may be no memory to read
  if (m.is_dense()) {
    std::memcpy(to, m.data, m.rows * row);
    return to + m.rows * row;
  }
  for (std::size_t i = 0; i < m.rows; ++i, to += row) std::memcpy(to, m.row(i), row);
  return to;
}

void AnyMatrixView::copy_row(std::size_t i, float* out) const noexcept {
  with_type(row(i), dtype, [&](const auto* from) { copy_elements(from, cols, out); });
}

AnyMatrix AnyMatrix::borrowed(SharedArray<std::byte> memory, Dtype dtype, SharedArray<Id> slots,
                              std::size_t cols, std::size_t stride) {
  AnyMatrix m(std::move(memory), dtype, slots.size(), cols);
  m.slots_ = std::move(slots);
  m.stride_ = stride;
  m.is_borrowed_ = true;
  return m;
}

AnyMatrix AnyMatrix::look_at(AnyMatrixView m) {
  const auto* data = static_cast<const std::byte*>(m.data);
  // How far borrowed memory reaches, nobody asks.
  if (m.slots != nullptr)
    return borrowed({{data, std::size_t{0}}, nullptr}, m.dtype, {{m.slots, m.rows}, nullptr},
                    m.cols, m.stride);
  const std::size_t elements = m.rows == 0 ? 0 : (m.rows - 1) * m.stride + m.cols;
  AnyMatrix looked_at({{data, elements * size_of(m.dtype)}, nullptr}, m.dtype, m.rows, m.cols);
  looked_at.stride_ = m.stride;
  return looked_at;
}

AnyMatrix AnyMatrix::copy_of(AnyMatrixView m) {
  AlignedVector<std::byte> bytes(m.rows * m.row_bytes());
  copy_rows(m, bytes.data());
  return {SharedArray<std::byte>(std::move(bytes)), m.dtype, m.rows, m.cols};
}

AnyMatrix AnyMatrix::first(std::size_t count) const {
  AnyMatrix m = *this;
  m.rows_ = count;
  if (is_borrowed_) {
    m.slots_ = slots_.first(count);
  } else if (view().is_dense()) {
    m.bytes_ = bytes_.first(m.bytes());
  }
  return m;
}

AnyMatrix AnyMatrix::at(std::span<const std::size_t> rows) const {
  const AnyMatrixView all = view();
  if (is_borrowed_) {
    AlignedVector<Id> slots(rows.size());
    for (std::size_t i = 0; i < rows.size(); ++i) slots[i] = slots_[rows[i]];
    return borrowed(bytes_, dtype_, SharedArray(std::move(slots)), cols_, stride_);
  }
  AlignedVector<std::byte> bytes(rows.size() * all.row_bytes());
  std::byte* to = bytes.data();
  for (const std::size_t i : rows) to = copy_rows(all.slice(i, 1), to);
  return {SharedArray<std::byte>(std::move(bytes)), dtype_, rows.size(), cols_};
}

AnyMatrix AnyMatrix::joined(AnyMatrixView more) const {
  if (is_borrowed_) {
    require(more.rows == 0 ||
                (more.slots != nullptr && more.data == bytes_.data() && more.stride == stride_),
            "rows are to join borrowed ones, but are not of their memory");
    AlignedVector<Id> slots(slots_.begin(), slots_.end());
    slots.insert(slots.end(), more.slots, more.slots + more.rows);
    return borrowed(bytes_, dtype_, SharedArray(std::move(slots)), cols_, stride_);
  }
  AlignedVector<std::byte> bytes((rows_ + more.rows) * more.row_bytes());
  copy_rows(more, copy_rows(view(), bytes.data()));
  return {SharedArray<std::byte>(std::move(bytes)), more.dtype, rows_ + more.rows, more.cols};
}

Matrix<float> to_f32(AnyMatrixView m) {
  Matrix<float> out(m.rows, m.cols);
  for (std::size_t i = 0; i < m.rows; ++i) m.copy_row(i, out.row(i));
  return out;
}

float largest_magnitude(AnyMatrixView m) {
  float largest = 0.0F;
  for (std::size_t i = 0; i < m.rows; ++i) {
    const float of_row =
        with_type(m.row(i), m.dtype, [&](const auto* row) { return magnitude(row, m.cols); });
    // Written so that NaN stays.
    if (!(of_row <= largest)) largest = of_row;
    if (!std::isfinite(largest)) break;
  }
  return largest;
}

void require_finite(AnyMatrixView m, std::string_view argument) {
  for (std::size_t i = 0; i < m.rows; ++i) {
    const bool finite =
        with_type(m.row(i), m.dtype, [&](const auto* row) { return all_finite(row, m.cols); });
    if (!finite) fail(ErrorCode::not_finite, "{} row {} holds NaN or infinity", argument, i);
  }
}

}  // namespace keyseek
