// Builds and searches keyseek's own indexes for a sweep.
#include "sweep/index_contender.hpp"

#include <chrono>
#include <memory>
#include <optional>
#include <utility>
#include <variant>

#include "base/fail.hpp"
#include "keyseek/measure.hpp"
#include "keyseek/score.hpp"
#include "keyseek/version.hpp"
#include "sweep/grid.hpp"

namespace keyseek::sweep {
namespace {

using AnyIndex = std::variant<FlatIndex, SketchIndex, ProjectionIndex>;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

AnyIndex build_index(const std::string& kind, AnyMatrixView keys, const io::TrainingSet& training,
                     const ProjectionParams& params, const Execution& run) {
  if (kind == "flat") return FlatIndex::build(keys, run);
  if (kind == "sketch") return SketchIndex::build(keys, training.queries.train, {}, run);
  if (training.lists.empty()) return ProjectionIndex::build(keys, training.queries, params, run);
  return ProjectionIndex::build_from_lists(keys, training.queries, training.lists, params, run);
}

io::TrainingSet training_for(const Problem& problem, const IndexParams& params) {
  if (params.kind == "flat") return {};
  io::TrainingSet training = params.training();
  // Tuned as it will be searched.
  training.queries.group = problem.group;
  if (!problem.warm) training.queries.tuning_steps = 1;
  return training;
}

/// Tuned dials are added to the points.
Built build(const Problem& problem, const IndexParams& params, const Execution& run,
            std::optional<AnyIndex>& index, std::vector<Point>& points) {
  const io::TrainingSet training = training_for(problem, params);
  const auto begin = Clock::now();
  index = build_index(params.kind, problem.data.keys.view(), training, params.projection, run);
  Built built{.seconds = seconds_since(begin),
              .bytes = std::visit([](const auto& any) { return any.bytes(); }, *index),
              .threads = run.thread_count(),
              .unreachable = 0,
              .extra_bytes = {}};
  if (const auto* projection = std::get_if<ProjectionIndex>(&*index)) {
    built.unreachable = projection->unreachable();
    built.extra_bytes = projection->extra_bytes();
    std::vector<OperatingPoint> tuned = projection->dials();
    for (OperatingPoint& point : tuned) {
      if (!params.novel) point.dials.novel = Dials().novel;
    }
    points = with_tuned(std::move(points), tuned);
  }
  return built;
}

Sample search(const Problem& problem, const IndexParams& params, const AnyIndex& index,
              const Point& point, bool cold) {
  MeasureParams how;
  how.group = problem.group;
  how.warm_start = problem.warm;
  how.cold_cache = cold;
  how.timed_steps = cold ? params.cold_steps : 0;
  how.search.k = problem.k;
  how.search.dials = point.dials;
  how.progress = params.between_steps;
  const auto begin = Clock::now();
  Measurement m = std::visit(
      [&](const auto& any) { return measure_steps(any, problem.data.queries, how); }, index);
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

Contender index_contender(const Problem& problem, IndexParams params) {
  require(params.kind == "flat" || params.kind == "sketch" || params.kind == "projection",
          "the index is '{}', which is none of flat, sketch and projection", params.kind);
  Contender contender{.index = params.kind,
                      .identity = {{"warm", problem.warm},
                                   {"isa", to_string(active_isa())},
                                   {"threads", 1},
                                   {"version", kVersion},
                                   {"build", params.build_params}},
                      .can_be_cold = true};
  if (!params.grid.empty()) contender.points = params.grid;
  const auto index = std::make_shared<std::optional<AnyIndex>>();
  contender.build = [&problem, params, index](const Execution& run, std::vector<Point>& points) {
    return build(problem, params, run, *index, points);
  };
  contender.measure = [&problem, params, index](const Point& point, bool cold) {
    return search(problem, params, **index, point, cold);
  };
  return contender;
}

}  // namespace keyseek::sweep
