#include "cli/problem.hpp"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/fail.hpp"

namespace keyseek::cli {
namespace {

constexpr std::size_t kHoldOutEvery = 5;
constexpr std::size_t kHeldOutSteps = 400;

template <class T>
Matrix<T> copy_rows(MatrixView<T> from, const std::vector<std::size_t>& rows) {
  Matrix<T> out(rows.size(), from.cols);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    std::copy_n(from.row(rows[i]), from.cols, out.row(i));
  }
  return out;
}

/// Moves some of the training steps to the tuning queries, and their lists away.
void hold_out(Training& training) {
  TrainingQueries& queries = training.queries;
  const std::size_t group = queries.group, steps = queries.train.rows() / group;
  const std::size_t every = std::max(kHoldOutEvery, steps / kHeldOutSteps);
  std::vector<std::size_t> kept, held;
  for (std::size_t row = 0; row < queries.train.rows(); ++row) {
    (row / group % every == every - 1 ? held : kept).push_back(row);
  }
  if (held.empty()) return;
  queries.tuning = copy_rows<float>(queries.train, held);
  queries.tuning_steps = 1;
  queries.train = copy_rows<float>(queries.train, kept);
  if (!training.lists.empty()) training.lists = copy_rows<Id>(training.lists, kept);
}

}  // namespace

Training take_training(io::Benchmark& data, bool use_lists, const std::string& name) {
  require(!data.learn.empty(),
          "{} has no training queries (\"learn\"), which a projection index needs: give some with "
          "--train",
          name);
  require(data.group >= 1 && data.learn.rows() % data.group == 0,
          "{} has {} training queries, no multiple of group {}", name, data.learn.rows(),
          data.group);
  require(!use_lists || !data.learn_ids.empty(),
          "{} has no lists (\"learn_neighbors\") for --use-lists", name);
  Training training;
  training.queries.train = std::move(data.learn);
  training.queries.tuning = std::move(data.tuning);
  training.queries.group = data.group;
  training.queries.tuning_steps = data.tuning_steps;
  if (use_lists) training.lists = std::move(data.learn_ids);
  if (training.queries.tuning.empty()) hold_out(training);
  return training;
}

Matrix<Id> first_columns(const Matrix<Id>& ids, std::size_t k, const std::string& name) {
  require(ids.cols() >= k, "{} has {} ids per query, but k is {}", name, ids.cols(), k);
  Matrix<Id> out(ids.rows(), k);
  for (std::size_t i = 0; i < ids.rows(); ++i) std::copy_n(ids.row(i), k, out.row(i));
  return out;
}

Matrix<Id> truth_of(const io::Benchmark& data, std::size_t k, const Execution& run) {
  if (data.truth_ids.cols() >= k) return first_columns(data.truth_ids, k, "truth");
  return exact_knn(data.keys.view(), data.queries, {.k = k}, run).ids;
}

Matrix<float> read_queries(const std::string& path) {
  return to_f32(io::read_vectors(path).view());
}

void replace_training(io::Benchmark& data, const std::string& path) {
  data.learn = read_queries(path);
  data.learn_ids = {};
  data.tuning = {};
  data.tuning_steps = 0;
}

ProjectionIndex build_projection(AnyMatrixView keys, const Training& training,
                                 const ProjectionParams& params, const Execution& run,
                                 BuildReport* report) {
  if (training.lists.empty()) {
    return ProjectionIndex::build(keys, training.queries, params, run, report);
  }
  return ProjectionIndex::build_from_lists(keys, training.queries, training.lists, params, run,
                                           report);
}

}  // namespace keyseek::cli
