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

}  // namespace

TrainingQueries training_set(const Benchmark& b, bool with_lists) {
  require(!b.learn.empty(),
          "the data has no training queries (\"learn\"), which a projection index needs");
  require(b.group >= 1 && b.learn.rows() % b.group == 0,
          "learn has {} rows, no multiple of group = {}", b.learn.rows(), b.group);
  const Matrix<Id> lists = with_lists ? b.learn_ids : Matrix<Id>();
  TrainingQueries set{b.learn, b.tuning, b.group, b.tuning_steps, lists};
  if (!b.tuning.empty()) return set;

  const std::size_t steps = b.learn.rows() / b.group;
  const std::size_t every = std::max(kHoldOutEvery, steps / kHeldOutSteps);
  std::vector<std::size_t> kept, held;
  for (std::size_t row = 0; row < b.learn.rows(); ++row) {
    (row / b.group % every == every - 1 ? held : kept).push_back(row);
  }
  if (held.empty()) return set;
  set.train = copy_rows<float>(b.learn, kept);
  set.tuning = copy_rows<float>(b.learn, held);
  set.tuning_steps = 1;
  if (!lists.empty()) set.lists = copy_rows<Id>(lists, kept);
  return set;
}

}  // namespace keyseek::io
