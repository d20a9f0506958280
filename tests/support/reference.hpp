/// The plainest way to the right answer, in f64.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <span>
#include <vector>

#include "keyseek/knn.hpp"
#include "keyseek/matrix.hpp"

namespace keyseek::test {

/// <query, key i>, and the same of the magnitudes: what rounding errors are relative to.
struct Product {
  double value = 0;
  double magnitude = 0;
};
inline Product product(AnyMatrixView keys, std::size_t i, const float* query) {
  std::vector<float> key(keys.cols);
  keys.copy_row(i, key.data());
  Product p;
  for (std::size_t j = 0; j < keys.cols; ++j) {
    const double term = double{key[j]} * double{query[j]};
    p.value += term;
    p.magnitude += std::fabs(term);
  }
  return p;
}

/// What a sum of d products in f32, in any order, may be away from the truth.
inline double rounding_bound(const Product& p, std::size_t d) {
  return static_cast<double>(d + 1) * 0x1p-24 * p.magnitude + 1e-40;
}

/// The k best keys of every query, equal scores by smaller id.
inline KnnLists brute_force(AnyMatrixView keys, MatrixView<float> queries, std::size_t k) {
  const Matrix<float> rows = to_f32(keys);
  KnnLists lists{Matrix<Id>(queries.rows, k), Matrix<float>(queries.rows, k)};
  std::vector<double> scores(keys.rows);
  std::vector<Id> order(keys.rows);
  for (std::size_t q = 0; q < queries.rows; ++q) {
    for (std::size_t i = 0; i < keys.rows; ++i) {
      scores[i] = std::inner_product(rows.row(i), rows.row(i) + keys.cols, queries.row(q), 0.0,
                                     std::plus<>(), [](double a, double b) { return a * b; });
    }
    std::iota(order.begin(), order.end(), Id{0});
    std::partial_sort(
        order.begin(), order.begin() + static_cast<std::ptrdiff_t>(k), order.end(),
        [&](Id a, Id b) { return scores[a] != scores[b] ? scores[a] > scores[b] : a < b; });
    for (std::size_t r = 0; r < k; ++r) {
      lists.ids.row(q)[r] = order[r];
      lists.scores.row(q)[r] = static_cast<float>(scores[order[r]]);
    }
  }
  return lists;
}

/// The elements, to compare with ==.
template <class T>
std::vector<T> elements(const Matrix<T>& m) {
  return {m.data(), m.data() + m.rows() * m.cols()};
}
template <class T>
std::vector<T> elements(const SharedArray<T>& array) {
  return {array.begin(), array.end()};
}

}  // namespace keyseek::test
