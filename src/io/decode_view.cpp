/// Makes a search problem of a captured head: later queries against earlier keys.
#include <algorithm>
#include <cstddef>
#include <numeric>
#include <utility>
#include <vector>

#include "base/fail.hpp"
#include "keyseek/io.hpp"

namespace keyseek::io {
namespace {

void check_head(const CapturedHead& head) {
  const std::size_t n = head.keys.rows(), d = head.keys.cols();
  require(!head.queries.empty(), "head has no queries");
  for (std::size_t g = 0; g < head.queries.size(); ++g) {
    require(head.queries[g].rows() == n && head.queries[g].cols() == d,
            "head: queries of query head {} are {} x {}, but keys {} x {}", g,
            head.queries[g].rows(), head.queries[g].cols(), n, d);
  }
}

void check_params(const CapturedHead& head, const DecodeViewParams& params) {
  const std::size_t n = head.keys.rows();
  require(head.prefill < n, "prefill is {} of {} tokens: none is left to be a test query",
          head.prefill, n);
  require(params.sink < head.prefill && params.window < head.prefill - params.sink,
          "sink {} and window {} leave no key of the {} tokens before decoding", params.sink,
          params.window, head.prefill);
  const std::size_t keys = head.prefill - params.window - params.sink;
  require(params.k > 0 && params.k <= keys, "k is {}, must be in [1, {}] (indexed keys)", params.k,
          keys);
}

}  // namespace

Matrix<float> step_queries(const CapturedHead& head, std::size_t first, std::size_t last) {
  check_head(head);
  require(first <= last && last <= head.keys.rows(), "positions [{}, {}) of {} tokens", first, last,
          head.keys.rows());
  const std::size_t group = head.queries.size();
  Matrix<float> out((last - first) * group, head.keys.cols());
  for (std::size_t i = 0; i < out.rows(); ++i)
    std::copy_n(head.queries[i % group].row(first + i / group), out.cols(), out.row(i));
  return out;
}

Benchmark decode_view(const CapturedHead& head, const DecodeViewParams& params,
                      const Execution& run) {
  check_head(head);
  check_params(head, params);
  std::vector<std::size_t> positions(head.prefill - params.sink);
  std::iota(positions.begin(), positions.end(), params.sink);
  TrainingQueries training = sample_training_queries(step_queries(head, params.sink, head.prefill),
                                                     positions, head.queries.size(), head.rope,
                                                     {.now = head.prefill,
                                                      .horizon = params.horizon,
                                                      .share = params.share,
                                                      .seed = params.seed,
                                                      .shift = params.shift});

  Benchmark b;
  b.keys = AnyMatrix::copy_of(
      head.keys.view().slice(params.sink, head.prefill - params.window - params.sink));
  b.queries = step_queries(head, head.prefill, head.keys.rows());
  b.learn = std::move(training.train);
  b.tuning = std::move(training.tuning);
  b.group = head.queries.size();
  b.tuning_steps = training.tuning_steps;
  KnnLists truth = exact_knn(b.keys.view(), b.queries, {.k = params.k}, run);
  b.truth_ids = std::move(truth.ids);
  b.truth_scores = std::move(truth.scores);
  return b;
}

}  // namespace keyseek::io
