/// Tries dials on held-out steps, from cheap to thorough, and keeps the cheapest that reach a
/// recall.
#include "index/tuning.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/parallel.hpp"
#include "search/scratch.hpp"
#include "search/step.hpp"

namespace keyseek {
namespace {

/// Dials worth trying, from cheap to thorough: along the ridge where lists and expansions
/// are in balance, and a little to both sides of it.
constexpr std::array<Dials, 22> kCandidates = {{
    {4, 2, 0, 0},     {4, 4, 0, 0},     {4, 4, 8, 0},    {4, 8, 0, 0},    {4, 8, 8, 0},
    {4, 8, 16, 0},    {8, 16, 0, 0},    {8, 16, 8, 0},   {8, 16, 16, 0},  {4, 8, 32, 0},
    {8, 16, 32, 0},   {8, 32, 0, 0},    {8, 32, 16, 0},  {8, 32, 32, 0},  {8, 16, 64, 0},
    {8, 32, 64, 0},   {8, 16, 128, 0},  {16, 64, 32, 0}, {16, 64, 64, 0}, {8, 32, 128, 0},
    {16, 64, 128, 0}, {16, 64, 256, 0},
}};

struct Trial {
  Dials dials;
  double recall = 0;
  double scanned_fraction = 0;
  double cost = 0;
};

// Of the held-out queries, those that are least like the training queries: a query beyond them
// is novel.
constexpr double kNovelShare = 0.01;

// Nanoseconds of one step on an AVX-512 core with everything in cache, as fitted to
// measurements at d = 64 and d = 256. Only their ratios matter: they rank dials.
double step_cost(const SearchStats& stats, const Dials& dials, std::size_t group,
                 std::size_t cols) {
  const auto d = static_cast<double>(cols);
  return static_cast<double>(group) * (2500 + 14.5 * d + 100.0 * dials.lists) +
         static_cast<double>(stats.scanned) * (4.0 + 0.033 * d) +
         static_cast<double>(stats.expanded) * 50.0;
}

double flat_cost(std::size_t n, std::size_t group, std::size_t cols) {
  const auto d = static_cast<double>(cols);
  return static_cast<double>(group) * (1500 + 12.0 * d) +
         static_cast<double>(n) * (2.9 + 0.0086 * d);
}

/// What all but kNovelShare of the similarities reach.
float least_familiar(std::vector<float>& similarity) {
  if (similarity.empty()) return Dials().novel;
  const auto rank = static_cast<std::size_t>(kNovelShare * static_cast<double>(similarity.size()));
  const auto at = similarity.begin() + static_cast<std::ptrdiff_t>(rank);
  std::nth_element(similarity.begin(), at, similarity.end());
  return *at;
}

Trial try_dials(const SearchSpace& space, const TrainingQueries& training, MatrixView<Id> truth,
                const Dials& dials) {
  const std::size_t group = training.group, k = truth.cols;
  const std::size_t steps = training.tuning.rows() / group;
  Trial trial{.dials = dials};
  Matrix<Id> found(truth.rows, k);
  SearchScratch scratch;
  Hits hits;
  std::vector<float> similarity;
  for (std::size_t step = 0; step < steps; ++step) {
    SearchParams params{.k = k};
    if (step % std::max<std::size_t>(1, training.tuning_steps) != 0) params.previous = &hits;
    const auto queries = training.tuning.view().slice(step * group, group);
    begin_step(space.store, queries, params, scratch.state(), hits);
    search_projection(space, queries, params, dials, scratch.state(), hits, 0);
    std::copy(hits.ids.begin(), hits.ids.end(), found.row(step * group));
    const std::vector<float>& own = scratch.state().route.similarity;
    if (dials.lists > 0) similarity.insert(similarity.end(), own.begin(), own.end());
    trial.scanned_fraction += static_cast<double>(hits.stats.scanned);
    trial.cost += step_cost(hits.stats, dials, group, space.store.code_cols());
  }
  trial.dials.novel = least_familiar(similarity);
  trial.recall = recall(truth, found);
  trial.scanned_fraction /= static_cast<double>(steps * space.store.size());
  trial.cost /= static_cast<double>(steps);
  return trial;
}

/// The candidates up to those that reach the highest target, and one wave more: the rest would
/// reach it at a higher cost. Waves have one size, so that threads do not matter.
std::vector<Trial> try_candidates(const SearchSpace& space, const TrainingQueries& training,
                                  MatrixView<Id> truth, double highest, const Execution& run) {
  constexpr std::size_t kWave = 4;
  std::vector<Trial> trials;
  bool reached = false, last = false;
  while (!last && trials.size() < kCandidates.size()) {
    last = reached;
    const std::size_t first = trials.size();
    trials.resize(std::min(kCandidates.size(), first + kWave));
    parallel_for(trials.size() - first, 1, run, "tuning", [&](std::size_t i, std::size_t, int) {
      trials[first + i] = try_dials(space, training, truth, kCandidates[first + i]);
    });
    reached = std::any_of(trials.begin(), trials.end(),
                          [&](const Trial& trial) { return trial.recall >= highest; });
  }
  return trials;
}

}  // namespace

std::vector<OperatingPoint> tune(const SearchSpace& space, const TrainingQueries& training,
                                 const ProjectionParams& params, const Execution& run) {
  if (training.tuning.empty() || params.target_recalls.empty()) return {};
  const std::size_t k = std::min(params.tuning_k, space.store.size());
  const KnnLists truth = exact_knn(space.store.stored(), training.tuning,
                                   {.k = k, .method = params.list_method}, run.silent());
  std::vector<double> targets = params.target_recalls;
  std::sort(targets.begin(), targets.end());
  const std::vector<Trial> trials = try_candidates(space, training, truth.ids, targets.back(), run);
  std::vector<OperatingPoint> points;
  for (const double target : targets) {
    const Trial* best = &trials[0];
    for (const Trial& trial : trials) {
      const bool reaches = trial.recall >= target, best_reaches = best->recall >= target;
      if (reaches != best_reaches
              ? reaches
              : (reaches ? trial.cost < best->cost : trial.recall > best->recall)) {
        best = &trial;
      }
    }
    points.push_back({.target_recall = target,
                      .recall = best->recall,
                      .scanned_fraction = best->scanned_fraction,
                      .dials = best->dials,
                      .flat_is_better = best->recall < target ||
                                        flat_cost(space.store.size(), training.group,
                                                  space.store.code_cols()) < best->cost});
  }
  return points;
}

Dials choose_dials(const std::vector<OperatingPoint>& points, std::size_t tuning_k, std::size_t k,
                   double target_recall) {
  Dials dials;
  for (const OperatingPoint& point : points) {
    dials = point.dials;
    if (point.target_recall >= target_recall) break;
  }
  if (k > tuning_k) {
    // More keys are wanted than were tuned for: look at as many more.
    const auto scale = [&](std::uint32_t dial) {
      return static_cast<std::uint32_t>(std::min<std::size_t>(0xffffU, dial * k / tuning_k));
    };
    dials = {scale(dials.probes), scale(dials.lists), scale(dials.expand), dials.pool, dials.novel};
  }
  return dials;
}

}  // namespace keyseek
