/// A search on the side, before a timed step with cold caches.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "base/random.hpp"
#include "keyseek/index.hpp"

namespace keyseek {

/// Elements in [-.5, .5).
inline Matrix<float> random_rows(std::size_t rows, std::size_t dim, std::uint64_t seed) {
  Random random(seed);
  Matrix<float> out(rows, dim);
  for (std::size_t i = 0; i < rows * dim; ++i) {
    out.data()[i] = static_cast<float>(random.uniform() - 0.5);
  }
  return out;
}

/// A small index of random keys. In a real model the searches of other layers run between
/// two steps of one layer: they push its index out of the caches, but the code and the
/// searching thread's memory are theirs too and stay. Searching this index after an eviction
/// brings those back.
class Rehearsal {
 public:
  Rehearsal(IndexKind kind, std::size_t dim) : index_(build(kind, dim)) {}

  void run(MatrixView<float> queries, SearchParams params, SearchScratch& scratch) {
    params.k = std::min(params.k, kKeys);
    params.previous = nullptr;
    index_.search(queries, params, scratch, hits_);
    params.previous = &hits_;
    index_.search(queries, params, scratch, hits_);
  }

 private:
  static constexpr std::size_t kKeys = 1024, kTraining = 512;

  static Index build(IndexKind kind, std::size_t dim) {
    const Matrix<float> keys = random_rows(kKeys, dim, 1);
    const TrainingQueries training{.train = random_rows(kTraining, dim, 2)};
    return Index::build(kind, AnyMatrixView::of(keys.view()), training, {}, {.threads = 1});
  }

  Index index_;
  Hits hits_;
};

}  // namespace keyseek
