#include "index/step.hpp"

#include "base/fail.hpp"
#include "score/range.hpp"

namespace keyseek {

void require_step(MatrixView<float> queries, const SearchParams& params, const KeyStore& store) {
  constexpr std::size_t kMostQueries = 64;
  params.validate();
  require(queries.rows >= 1 && queries.rows <= kMostQueries,
          "queries has {} rows, a step holds 1 to {}", queries.rows, kMostQueries);
  require(queries.cols == store.dim(), "queries have dimension {}, the index has {}", queries.cols,
          store.dim());
  require(params.k <= store.size(), "k is {}, but there are only {} keys", params.k, store.size());
  require_range(AnyMatrixView::of(queries), "queries");
  require_products(queries, store.longest(), "queries");
}

}  // namespace keyseek
