/// What numbers a search can work with: in f32, and in sums of 32-bit integers.
#pragma once

#include <cstddef>
#include <string_view>

#include "keyseek/matrix.hpp"

namespace keyseek {

/// Elements up to here leave room for means and differences.
inline constexpr float kLargestElement = 0x1p120F;
/// Values up to here leave room for sums over as many tokens as there may be.
inline constexpr float kLargestValue = 0x1p104F;
/// The inner product of two 8-bit codes of so many elements, each up to 127 squared, fits 32 bits.
inline constexpr std::size_t kMostDimensions = 133'000;

/// Throws Error unless codes of d elements can be compared.
void require_dimension(std::size_t d);
/// Throws Error that names `argument` and its first row with NaN, infinity, or an element beyond
/// `most`.
void require_range(AnyMatrixView m, std::string_view argument, float most = kLargestElement);

/// Throws Error that names the first row of `argument` whose inner products with keys of length
/// up to `longest` may be beyond f32. Elements are finite.
void require_products(MatrixView<float> queries, double longest, std::string_view argument);
/// The same for given keys, whose lengths are looked at where it matters.
void require_products(MatrixView<float> queries, AnyMatrixView keys, std::string_view argument);

/// The queries, each times a power of two where its codes, their scales, or products with keys of
/// length up to `longest` would come near the ends of f32: which keys are best does not depend on
/// a query's length. `moved` is where they then lie.
[[nodiscard]] MatrixView<float> in_range(MatrixView<float> queries, double longest,
                                         Matrix<float>& moved);

}  // namespace keyseek
