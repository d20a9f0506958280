#include "keyseek/matrix.hpp"

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "base/random.hpp"
#include "keyseek/error.hpp"

namespace keyseek {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

/// What a format with `mantissa` bits and an exponent bias means by `bits`, by arithmetic.
double decode(std::uint32_t bits, int mantissa, int bias) {
  const auto magnitude = static_cast<int>(bits & 0x7fffU);
  const int exponent = magnitude >> mantissa;
  const int fraction = magnitude & ((1 << mantissa) - 1);
  const double value = exponent == 0
                           ? std::ldexp(fraction, 1 - bias - mantissa)
                           : std::ldexp((1 << mantissa) + fraction, exponent - bias - mantissa);
  return (bits & 0x8000U) != 0 ? -value : value;
}

TEST(Half, EveryValueIsRightAndComesBack) {
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const Half h{static_cast<std::uint16_t>(bits)};
    const float f = to_float(h);
    const bool special = (bits & 0x7c00U) == 0x7c00U;
    if (special && (bits & 0x3ffU) != 0) {
      ASSERT_TRUE(std::isnan(f)) << bits;
      ASSERT_EQ(to_half(f).bits, bits | 0x200U);  // a NaN stays one, made quiet
    } else {
      ASSERT_EQ(f, special ? std::copysign(kInfinity, std::bit_cast<std::int16_t>(h.bits))
                           : static_cast<float>(decode(bits, 10, 15)));
      ASSERT_EQ(std::signbit(f), (bits & 0x8000U) != 0);
      ASSERT_EQ(to_half(f).bits, bits);
    }
  }
}

TEST(BFloat16, EveryValueIsRightAndComesBack) {
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const BFloat16 b{static_cast<std::uint16_t>(bits)};
    const float f = to_float(b);
    const bool special = (bits & 0x7f80U) == 0x7f80U;
    if (special && (bits & 0x7fU) != 0) {
      ASSERT_TRUE(std::isnan(f)) << bits;
      ASSERT_EQ(to_bfloat16(f).bits, bits | 0x40U);
    } else {
      ASSERT_EQ(f, special ? std::copysign(kInfinity, std::bit_cast<std::int16_t>(b.bits))
                           : static_cast<float>(decode(bits, 7, 127)));
      ASSERT_EQ(std::signbit(f), (bits & 0x8000U) != 0);
      ASSERT_EQ(to_bfloat16(f).bits, bits);
    }
  }
}

/// Between every two neighbouring finite values: below the middle, the middle, above it.
template <class T, class Round>
void expect_nearest_even(std::uint32_t infinity, Round round) {
  for (std::uint32_t bits = 0; bits + 1 < infinity; ++bits) {
    const float low = to_float(T{static_cast<std::uint16_t>(bits)});
    const float high = to_float(T{static_cast<std::uint16_t>(bits + 1)});
    const float middle = low + (high - low) / 2;
    ASSERT_EQ(round(std::nextafter(middle, 0.0F)).bits, bits);
    ASSERT_EQ(round(middle).bits, bits + bits % 2) << bits;
    ASSERT_EQ(round(std::nextafter(middle, kInfinity)).bits, bits + 1);
    ASSERT_EQ(round(-middle).bits, (bits + bits % 2) | 0x8000U);
  }
}

TEST(Half, RoundsToNearestEven) {
  expect_nearest_even<Half>(0x7c00, [](float f) { return to_half(f); });
}

TEST(BFloat16, RoundsToNearestEven) {
  expect_nearest_even<BFloat16>(0x7f80, [](float f) { return to_bfloat16(f); });
}

TEST(Half, OverflowsToInfinityAndUnderflowsToZero) {
  EXPECT_EQ(to_half(65504.0F).bits, 0x7bffU);
  EXPECT_EQ(to_half(std::nextafter(65520.0F, 0.0F)).bits, 0x7bffU);
  EXPECT_EQ(to_half(65520.0F).bits, 0x7c00U);
  EXPECT_EQ(to_half(1e30F).bits, 0x7c00U);
  EXPECT_EQ(to_half(-kInfinity).bits, 0xfc00U);
  EXPECT_EQ(to_half(1e-30F).bits, 0U);
  EXPECT_EQ(to_half(-1e-30F).bits, 0x8000U);
  EXPECT_EQ(to_half(std::numeric_limits<float>::denorm_min()).bits, 0U);
}

TEST(BFloat16, OverflowsToInfinityAndKeepsNaN) {
  EXPECT_EQ(to_bfloat16(std::numeric_limits<float>::max()).bits, 0x7f80U);
  EXPECT_EQ(to_bfloat16(-kInfinity).bits, 0xff80U);
  // All payload bits lie in the part that is cut off.
  EXPECT_TRUE(std::isnan(to_float(to_bfloat16(std::bit_cast<float>(0x7f800001U)))));
  EXPECT_TRUE(std::isnan(to_float(to_half(std::bit_cast<float>(0xff800001U)))));
  EXPECT_TRUE(std::isnan(to_float(to_half(kNaN))));
}

TEST(Dtype, SizesAndNames) {
  EXPECT_EQ(size_of(Dtype::f32), 4U);
  EXPECT_EQ(size_of(Dtype::f16), 2U);
  EXPECT_EQ(size_of(Dtype::bf16), 2U);
  EXPECT_EQ(size_of(Dtype::i8), 1U);
  EXPECT_EQ(to_string(Dtype::f32), "f32");
  EXPECT_EQ(to_string(Dtype::f16), "f16");
  EXPECT_EQ(to_string(Dtype::bf16), "bf16");
  EXPECT_EQ(to_string(Dtype::i8), "i8");
  EXPECT_EQ(kDtypeOf<float>, Dtype::f32);
  EXPECT_EQ(kDtypeOf<Half>, Dtype::f16);
  EXPECT_EQ(kDtypeOf<BFloat16>, Dtype::bf16);
  EXPECT_EQ(kDtypeOf<std::int8_t>, Dtype::i8);
}

TEST(Matrix, StartsAlignedAndZero) {
  const Matrix<float> m(3, 5);
  EXPECT_EQ(m.rows(), 3U);
  EXPECT_EQ(m.cols(), 5U);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(m.data()) % 64, 0U);
  for (std::size_t i = 0; i < 15; ++i) EXPECT_EQ(m.data()[i], 0.0F);
  EXPECT_TRUE(Matrix<float>().empty());
  EXPECT_TRUE(Matrix<float>(0, 8).view().empty());
}

TEST(Matrix, CopiesAreIndependent) {
  Matrix<float> a(2, 2);
  a.row(1)[0] = 7;
  Matrix<float> b = a;
  b.row(1)[0] = 8;
  EXPECT_EQ(a.row(1)[0], 7.0F);
}

TEST(MatrixView, WalksStridesAndSlices) {
  const std::array<float, 12> data{0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23};
  const MatrixView<float> m(data.data(), 3, 2, 4);  // the last two columns are padding
  EXPECT_EQ(m.row(2)[1], 21.0F);
  const auto tail = m.slice(1, 2);
  EXPECT_EQ(tail.rows, 2U);
  EXPECT_EQ(tail.stride, 4U);
  EXPECT_EQ(tail.row(0)[0], 10.0F);

  const auto any = AnyMatrixView::of(m).slice(2, 1);
  std::array<float, 2> row{};
  any.copy_row(0, row.data());
  EXPECT_EQ(row[0], 20.0F);
  EXPECT_EQ(row[1], 21.0F);
}

/// A strided [3, 37] matrix of T with `make(value)` of small integers, as f32.
template <class T, class Make>
void expect_round_trip(Make make) {
  constexpr std::size_t kRows = 3, kCols = 37, kStride = 40;
  std::vector<T> data(kRows * kStride, make(-99));
  const auto value = [](std::size_t i, std::size_t j) {
    return static_cast<float>(j) - 10.0F * static_cast<float>(i);
  };
  for (std::size_t i = 0; i < kRows; ++i) {
    for (std::size_t j = 0; j < kCols; ++j) data[i * kStride + j] = make(value(i, j));
  }
  const auto strided = AnyMatrixView::of(MatrixView<T>(data.data(), kRows, kCols, kStride));
  const AnyMatrix copy = AnyMatrix::copy_of(strided);
  EXPECT_EQ(copy.dtype(), kDtypeOf<T>);
  EXPECT_EQ(copy.bytes(), kRows * kCols * sizeof(T));
  EXPECT_EQ(copy.view().stride, kCols);
  for (const auto& view : {strided, copy.view()}) {
    const Matrix<float> out = to_f32(view);
    ASSERT_EQ(out.rows(), kRows);
    ASSERT_EQ(out.cols(), kCols);
    for (std::size_t i = 0; i < kRows; ++i) {
      for (std::size_t j = 0; j < kCols; ++j) ASSERT_EQ(out.row(i)[j], value(i, j));
    }
  }
}

TEST(AnyMatrix, CopiesAndConvertsEveryType) {
  expect_round_trip<float>([](float f) { return f; });
  expect_round_trip<Half>([](float f) { return to_half(f); });
  expect_round_trip<BFloat16>([](float f) { return to_bfloat16(f); });
  expect_round_trip<std::int8_t>([](float f) { return static_cast<std::int8_t>(f); });
}

TEST(AnyMatrix, RowsConvertAsSingleValuesDo) {
  std::vector<Half> all(65536);
  for (std::size_t i = 0; i < all.size(); ++i) all[i].bits = static_cast<std::uint16_t>(i);
  const auto rows = to_f32(AnyMatrixView::of(MatrixView<Half>(all.data(), 1, all.size())));
  for (std::size_t i = 0; i < all.size(); ++i) {
    ASSERT_EQ(std::bit_cast<std::uint32_t>(rows.row(0)[i]),
              std::bit_cast<std::uint32_t>(to_float(all[i])));
  }
}

TEST(AnyMatrix, EmptyIsFine) {
  EXPECT_EQ(AnyMatrix::copy_of({}).rows(), 0U);
  EXPECT_EQ(to_f32(AnyMatrix().view()).rows(), 0U);
  EXPECT_NO_THROW(require_finite({}, "keys"));
}

TEST(SharedArray, CopiesShareTheOwner) {
  SharedArray<int> copy;
  EXPECT_TRUE(copy.empty());
  {
    AlignedVector<int> values(3);
    values[1] = 5;
    const SharedArray<int> array(std::move(values));
    EXPECT_EQ(array.size(), 3U);
    EXPECT_EQ(array.bytes(), 3 * sizeof(int));
    copy = array;
    EXPECT_EQ(copy.data(), array.data());
  }
  EXPECT_EQ(copy[1], 5);
  int sum = 0;
  for (const int v : copy) sum += v;
  EXPECT_EQ(sum, 5);
}

TEST(SharedArray, KeepsAForeignOwnerAlive) {
  auto owner = std::make_shared<std::vector<int>>(std::vector<int>{1, 2, 3});
  const std::weak_ptr<std::vector<int>> watch = owner;
  {
    const SharedArray<int> middle(std::span<const int>(*owner).subspan(1, 1), owner);
    owner.reset();
    EXPECT_FALSE(watch.expired());
    EXPECT_EQ(middle[0], 2);
    EXPECT_EQ(middle.span().size(), 1U);
  }
  EXPECT_TRUE(watch.expired());
}

void expect_refused(AnyMatrixView m, std::string_view argument, const std::string& sentence) {
  try {
    require_finite(m, argument);
    FAIL() << "not refused: " << sentence;
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::not_finite);
    EXPECT_EQ(e.what(), sentence);
  }
}

TEST(RequireFinite, NamesArgumentAndFirstBadRow) {
  Matrix<float> m(20, 7);
  require_finite(AnyMatrixView::of(m.view()), "keys");
  m.row(19)[0] = kNaN;
  expect_refused(AnyMatrixView::of(m.view()), "keys", "keys row 19 holds NaN or infinity");
  m.row(17)[6] = -kInfinity;
  expect_refused(AnyMatrixView::of(m.view()), "queries", "queries row 17 holds NaN or infinity");
}

TEST(RequireFinite, SeesEveryElementOfEveryType) {
  for (std::size_t j = 0; j < 37; ++j) {
    std::vector<Half> half(37, Half{0x7bff});
    std::vector<BFloat16> bfloat(37, BFloat16{0xff7f});
    const auto half_view = AnyMatrixView::of(MatrixView<Half>(half.data(), 1, 37));
    const auto bfloat_view = AnyMatrixView::of(MatrixView<BFloat16>(bfloat.data(), 1, 37));
    require_finite(half_view, "keys");
    require_finite(bfloat_view, "keys");
    half[j].bits = 0xfc00;
    bfloat[j].bits = 0x7fc0;
    expect_refused(half_view, "keys", "keys row 0 holds NaN or infinity");
    expect_refused(bfloat_view, "keys", "keys row 0 holds NaN or infinity");
  }
}

TEST(RequireFinite, AcceptsExtremesAndLooksAwayFromPadding) {
  const std::array<float, 8> data{std::numeric_limits<float>::max(),
                                  std::numeric_limits<float>::denorm_min(),
                                  -0.0F,
                                  kNaN,
                                  std::numeric_limits<float>::lowest(),
                                  0.0F,
                                  1.0F,
                                  kInfinity};
  require_finite(AnyMatrixView::of(MatrixView<float>(data.data(), 2, 3, 4)), "keys");
  const std::array<std::int8_t, 4> codes{-128, -1, 127, 0};
  require_finite(AnyMatrixView::of(MatrixView<std::int8_t>(codes.data(), 2, 2)), "keys");
}

}  // namespace
}  // namespace keyseek
