// Builds and searches keyseek's own indexes for a sweep.
#include "sweep/index_contender.hpp"

#include <chrono>
#include <memory>
#include <utility>

#include "base/fail.hpp"
#include "keyseek/measure.hpp"
#include "keyseek/score.hpp"
#include "keyseek/version.hpp"
#include "sweep/grid.hpp"

namespace keyseek::sweep {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

TrainingQueries training_for(const Problem& problem, const IndexContenderParams& params) {
  if (params.kind == IndexKind::flat) return {};
  TrainingQueries training = params.training();
  // Tuned as it will be searched.
  training.group = problem.group;
  if (!problem.warm) training.tuning_steps = 1;
  return training;
}

std::size_t unreachable(const Index& index) {
  for (const IndexFact& fact : index.facts())
    if (fact.name == "unreachable") return fact.value;
  return 0;
}

/// Tuned dials are added to the points.
Built build(const Problem& problem, const IndexContenderParams& params, const Execution& run,
            Index& index, std::vector<Point>& points) {
  const TrainingQueries training = training_for(problem, params);
  const bool projection = params.kind == IndexKind::projection;
  const auto begin = Clock::now();
  index = Index::build(params.kind, problem.data.keys, training,
                       projection ? IndexParams(params.projection) : IndexParams(), run);
  Built built{.seconds = seconds_since(begin),
              .bytes = index.bytes(),
              .threads = run.thread_count(),
              .unreachable = unreachable(index),
              .extra_bytes = {}};
  if (!projection) return built;
  built.extra_bytes = index.extra_bytes();
  std::vector<OperatingPoint> tuned = index.operating_points();
  for (OperatingPoint& point : tuned) {
    if (!params.novel) point.dials.novel = Dials().novel;
  }
  points = with_tuned(std::move(points), tuned);
  return built;
}

Sample search(const Problem& problem, const IndexContenderParams& params, const Index& index,
              const Point& point, bool cold) {
  MeasureParams how;
  how.group = problem.group;
  how.warm_start = problem.warm;
  how.cold_cache = cold;
  how.timed_steps = cold ? params.cold_steps : 0;
  how.search.k = problem.k;
  if (point.dials) how.search.projection = {.dials = point.dials};
  how.progress = params.between_steps;
  const auto begin = Clock::now();
  Measurement m = measure_steps(index, problem.data.queries, how);
  return {.ids = std::move(m.ids),
          .seconds = seconds_since(begin),
          .us_per_query = m.us_mean / static_cast<double>(problem.group),
          .us_per_step_p50 = m.us_p50,
          .us_per_step_p95 = m.us_p95,
          .scanned_fraction = m.scanned_fraction,
          .bytes_read = m.bytes_read,
          .expanded = m.expanded};
}

}  // namespace

Contender index_contender(const Problem& problem, IndexContenderParams params) {
  Contender contender{.index = std::string(to_string(params.kind)),
                      .identity = {{"warm", problem.warm},
                                   {"isa", to_string(active_isa())},
                                   {"threads", 1},
                                   {"version", kVersion},
                                   {"build", params.build_params}},
                      .can_be_cold = true};
  if (!params.grid.empty()) contender.points = params.grid;
  const auto index = std::make_shared<Index>();
  contender.build = [&problem, params, index](const Execution& run, std::vector<Point>& points) {
    return build(problem, params, run, *index, points);
  };
  contender.measure = [&problem, params, index](const Point& point, bool cold) {
    return search(problem, params, *index, point, cold);
  };
  return contender;
}

}  // namespace keyseek::sweep
