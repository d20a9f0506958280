/// What an index is built from and judged by, as files give it.
#include "cli/problem.hpp"

#include <algorithm>

#include "base/fail.hpp"

namespace keyseek::cli {

TrainingQueries training_of(const io::Benchmark& data, bool use_lists, const std::string& name) {
  require(!data.learn.empty(),
          "{} has no training queries (\"learn\"), which a projection index needs: give some with "
          "--train",
          name);
  require(!use_lists || !data.learn_ids.empty(),
          "{} has no lists (\"learn_neighbors\") for --use-lists", name);
  return io::training_set(data, use_lists);
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

}  // namespace keyseek::cli
