/// Exact k nearest keys by inner product: the truth, and the builder's input.
///
/// A blocked scan with a top-k merge, deterministic at any thread count: equal
/// scores are ordered by the smaller id. Views are only read, and the lists are
/// values of their own; thread-safe.
///
///     auto truth = keyseek::exact_knn(keys, queries, {.k = 100});
///     keyseek::Id best = truth.ids.row(3)[0];    // best key of query 3
///     float product = truth.scores.row(3)[0];    // its inner product
#pragma once

#include <cstddef>
#include <string_view>

#include "keyseek/execution.hpp"
#include "keyseek/matrix.hpp"

namespace keyseek {

enum class KnnMethod {
  f32,   ///< every inner product in f32
  int8,  ///< 8-bit scan, then the best `pool` reranked in stored precision
};

struct KnnParams {
  std::size_t k = 100;
  KnnMethod method = KnnMethod::f32;
  /// Keys reranked per query by the int8 method; 0: 1.3 k from d = 128 on, 1.6 k below, and a
  /// few more at small k, which gave recall >= .9999 on attention keys.
  std::size_t pool = 0;

  void validate(std::size_t n) const;  ///< throws Error(invalid_argument)
};

struct KnnLists {
  Matrix<Id> ids;        ///< [queries, k], best first
  Matrix<float> scores;  ///< [queries, k], inner products, descending
};

/// Exact top-k of every query. `queries` is [m, d] f32, `keys` [n, d]; 1 <= k <= n.
/// Throws Error on a wrong shape, NaN or infinity, or cancellation.
[[nodiscard]] KnnLists exact_knn(AnyMatrixView keys, MatrixView<float> queries,
                                 const KnnParams& params = {}, const Execution& run = {});

/// Share of `truth`'s ids found in `found`, averaged over the rows (recall@k with
/// k = truth.cols). Rows of `found` may be shorter, padded with kNoId. Throws Error when one of
/// them names no key of `keys`.
[[nodiscard]] double recall(MatrixView<Id> truth, MatrixView<Id> found, std::size_t keys = kNoId);

/// Throws Error that names `argument` and its first row with an id of no key, kNoId aside: it is
/// of other keys than these.
void require_ids(MatrixView<Id> ids, std::size_t keys, std::string_view argument);

}  // namespace keyseek
