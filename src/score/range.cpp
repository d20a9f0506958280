/// Refuses numbers that a search cannot work with, and moves queries to where it can.
#include "score/range.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <vector>

#include "base/fail.hpp"

namespace keyseek {
namespace {

// A quarter of what f32 holds: sums of a few products stay finite.
constexpr double kLargestProduct = std::numeric_limits<float>::max() / 4;

double length_of(const float* row, std::size_t d) {
  double power = 0;
  for (std::size_t j = 0; j < d; ++j) power += double{row[j]} * double{row[j]};
  return std::sqrt(power);
}

double longest_row(AnyMatrixView m) {
  std::vector<float> row(m.cols);
  double longest = 0;
  for (std::size_t i = 0; i < m.rows; ++i) {
    m.copy_row(i, row.data());
    longest = std::max(longest, length_of(row.data(), m.cols));
  }
  return longest;
}

/// The exponent of two that brings a query to the middle of f32, or 0 far from the ends of f32.
int exponent_of(float largest, double longest) {
  constexpr int kOrdinary = 20;
  if (largest == 0.0F) return 0;
  const int of_query = std::ilogb(largest), of_keys = longest > 0 ? std::ilogb(longest) : 0;
  if (std::abs(of_query) <= kOrdinary && std::abs(of_keys) <= kOrdinary) return 0;
  return -of_keys / 2 - of_query;
}

/// A length that no row exceeds.
double bound(AnyMatrixView m) {
  return std::sqrt(static_cast<double>(m.cols)) * double{largest_magnitude(m)};
}

}  // namespace

void require_dimension(std::size_t d) {
  require(d <= kMostDimensions, "keys have dimension {}, at most {} can be searched in 8 bits", d,
          kMostDimensions);
}

void require_range(AnyMatrixView m, std::string_view argument, float most) {
  if (largest_magnitude(m) <= most) return;
  require_finite(m, argument);
  for (std::size_t i = 0; i < m.rows; ++i) {
    const float largest = largest_magnitude(m.slice(i, 1));
    require(largest <= most, "{} row {} holds {:.3g}, at most {:.3g} fits: scale the vectors down",
            argument, i, largest, most);
  }
}

void require_products(MatrixView<float> queries, double longest, std::string_view argument) {
  if (bound(AnyMatrixView::of(queries)) * longest <= kLargestProduct) return;
  for (std::size_t i = 0; i < queries.rows; ++i) {
    const double length = length_of(queries.row(i), queries.cols);
    require(length * longest <= kLargestProduct,
            "{} row {} has length {:.3g} and keys may have {:.3g}: inner products beyond {:.3g} do "
            "not fit f32, scale queries or keys down",
            argument, i, length, longest, kLargestProduct);
  }
}

void require_products(MatrixView<float> queries, AnyMatrixView keys, std::string_view argument) {
  double longest = bound(keys);
  if (bound(AnyMatrixView::of(queries)) * longest > kLargestProduct) longest = longest_row(keys);
  require_products(queries, longest, argument);
}

MatrixView<float> in_range(MatrixView<float> queries, double longest, Matrix<float>& moved) {
  bool as_given = true;
  for (std::size_t g = 0; g < queries.rows; ++g) {
    const float largest = largest_magnitude(AnyMatrixView::of(queries.slice(g, 1)));
    const int exponent = exponent_of(largest, longest);
    if (exponent == 0) continue;
    if (as_given) moved = to_f32(AnyMatrixView::of(queries));
    as_given = false;
    for (std::size_t j = 0; j < queries.cols; ++j)
      moved.row(g)[j] = std::ldexp(queries.row(g)[j], exponent);
  }
  return as_given ? queries : moved.view();
}

}  // namespace keyseek
