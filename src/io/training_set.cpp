/// Takes what an index is built from out of the queries of a benchmark.
#include <algorithm>
#include <vector>

#include "base/fail.hpp"
#include "keyseek/io.hpp"

namespace keyseek::io {
namespace {

constexpr std::size_t kHoldOutEvery = 5, kHeldOutSteps = 400;

template <class T>
Matrix<T> copy_rows(MatrixView<T> from, const std::vector<std::size_t>& rows) {
  Matrix<T> out(rows.size(), from.cols);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    std::copy_n(from.row(rows[i]), from.cols, out.row(i));
  }
  return out;
}

/// Every fifth step for tuning, at most kHeldOutSteps, each a sequence of its own.
TrainingQueries held_out(MatrixView<float> queries, std::size_t group, const Matrix<Id>& lists,
                         const char* name) {
  require(group >= 1 && queries.rows % group == 0, "{} has {} rows, no multiple of group = {}",
          name, queries.rows, group);
  const std::size_t steps = queries.rows / group;
  const std::size_t every = std::max(kHoldOutEvery, steps / kHeldOutSteps);
  std::vector<std::size_t> kept, held;
  for (std::size_t row = 0; row < queries.rows; ++row)
    (row / group % every == every - 1 ? held : kept).push_back(row);
  TrainingQueries set{.train = copy_rows(queries, kept), .group = group};
  set.lists = lists.empty() ? Matrix<Id>() : copy_rows<Id>(lists, kept);
  if (held.empty()) return set;
  set.tuning = copy_rows(queries, held);
  set.tuning_steps = 1;
  return set;
}

}  // namespace

TrainingQueries training_set(const Benchmark& b, bool with_lists) {
  require(!b.learn.empty(),
          "the data has no training queries (\"learn\"), which a projection index needs");
  if (b.tuning.empty())
    return held_out(b.learn, b.group, with_lists ? b.learn_ids : Matrix<Id>(), "learn");
  require(b.group >= 1 && b.learn.rows() % b.group == 0,
          "learn has {} rows, no multiple of group = {}", b.learn.rows(), b.group);
  return {b.learn, b.tuning, b.group, b.tuning_steps, with_lists ? b.learn_ids : Matrix<Id>()};
}

TrainingQueries training_set(MatrixView<float> queries, std::size_t group) {
  require(!queries.empty(), "queries is empty");
  return held_out(queries, group, {}, "queries");
}

}  // namespace keyseek::io
