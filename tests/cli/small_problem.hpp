/// A search problem made on the spot, small enough to build indexes of it again and again.
#pragma once

#include <utility>

#include "keyseek/io.hpp"
#include "keyseek/knn.hpp"
#include "support/ood_data.hpp"

namespace keyseek::test {

/// 400 keys of dimension 16, 20 test steps and 150 training steps of 2 queries, k = 10.
inline io::Benchmark small_benchmark() {
  OodData data = make_ood_data({.n = 400,
                                .d = 16,
                                .group = 2,
                                .train_steps = 150,
                                .tuning_runs = 2,
                                .tuning_steps = 8,
                                .test_steps = 20});
  io::Benchmark b;
  b.keys = AnyMatrix::copy_of(AnyMatrixView::of(data.keys.view()));
  b.queries = std::move(data.test);
  b.learn = std::move(data.training.train);
  b.tuning = std::move(data.training.tuning);
  b.group = 2;
  b.tuning_steps = 8;
  KnnLists truth = exact_knn(b.keys.view(), b.queries, {.k = 10});
  b.truth_ids = std::move(truth.ids);
  b.truth_scores = std::move(truth.scores);
  b.learn_ids = exact_knn(b.keys.view(), b.learn, {.k = 10}).ids;
  return b;
}

}  // namespace keyseek::test
