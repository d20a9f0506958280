/// What an index is built from and judged by, as files give it.
#include "cli/problem.hpp"

#include <algorithm>

#include "base/fail.hpp"

namespace keyseek::cli {

TrainingQueries training_of(const io::Benchmark& data, bool use_lists, const std::string& name) {
  require(!data.learn.empty(),
          "{} has no training queries (\"learn\"), from which sketch and projection indexes learn: "
          "give queries like those to come with --train (where these are like the keys, the keys' "
          "file will do), or take --index flat",
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

Matrix<float> read_queries(const std::string& path, const io::Hdf5Access& access) {
  const AnyMatrix vectors = io::read_vectors(path, access);
  require_finite(vectors.view(), path);
  return to_f32(vectors.view());
}

MetricSpace by_metric(io::Benchmark& data, Metric metric) {
  if (metric == Metric::ip) return {};
  const MetricSpace space = MetricSpace::of(metric, data.keys.view());
  data.keys = space.keys(data.keys.view());
  const auto move = [&](Matrix<float>& part, const char* name) {
    if (!part.empty()) part = space.queries(part, name);
  };
  move(data.queries, "queries");
  move(data.learn, "training queries");
  move(data.tuning, "tuning queries");
  return space;
}

void ask_some_of_training(io::Benchmark& data) {
  constexpr std::size_t kEvery = 10, kMostQueries = 1000;
  const std::size_t group = data.group, steps = data.learn.rows() / group;
  require(steps >= 2, "--train has {} steps, too few to ask some of them: give --queries", steps);
  const std::size_t every = std::max({std::size_t{2}, std::min(kEvery, steps),
                                      (data.learn.rows() + kMostQueries - 1) / kMostQueries});
  const std::size_t asked = steps / every;
  Matrix<float> queries(asked * group, data.learn.cols());
  Matrix<float> rest((steps - asked) * group, data.learn.cols());
  std::size_t to_queries = 0, to_rest = 0;
  for (std::size_t step = 0; step < steps; ++step) {
    const bool ask = step % every == every - 1;
    float* const to = ask ? queries.row(to_queries) : rest.row(to_rest);
    (ask ? to_queries : to_rest) += group;
    std::copy_n(data.learn.row(step * group), group * data.learn.cols(), to);
  }
  data.queries = std::move(queries);
  data.learn = std::move(rest);
}

void replace_training(io::Benchmark& data, const std::string& path, const io::Hdf5Access& access) {
  data.learn = read_queries(path, access);
  data.learn_ids = {};
  data.tuning = {};
  data.tuning_steps = 0;
}

}  // namespace keyseek::cli
