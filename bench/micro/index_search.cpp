// A step of four queries on made keys (16,384 x 128), k = 100, on the instruction set in use:
// steps in a row with warm start, and each step on its own.
#include <benchmark/benchmark.h>

#include <cstdint>

#include "keyseek/index.hpp"
#include "made_data.hpp"

namespace keyseek::bench {
namespace {

constexpr std::size_t kKeys = 16384, kDim = 128, kGroup = 4;

const MadeProblem& problem() {
  static const MadeProblem made = made_problem(kKeys, kDim, kGroup);
  return made;
}

const Index& flat_index() {
  static const Index index =
      Index::build(IndexKind::flat, AnyMatrixView::of(problem().keys.view()));
  return index;
}

const Index& projection_index() {
  static const Index index = Index::build(
      IndexKind::projection, AnyMatrixView::of(problem().keys.view()), problem().training);
  return index;
}

void search_steps(benchmark::State& state, const Index& index, SearchParams params, bool warm) {
  const Matrix<float>& queries = problem().steps;
  const std::size_t steps = queries.rows() / kGroup;
  SearchScratch scratch;
  Hits hits;
  std::size_t step = 0, scanned = 0;
  for (auto _ : state) {
    params.previous = warm && step > 0 ? &hits : nullptr;
    index.search(queries.view().slice(step * kGroup, kGroup), params, scratch, hits);
    scanned += hits.stats.scanned;
    step = (step + 1) % steps;
  }
  const auto keys = static_cast<double>(kKeys) * static_cast<double>(state.iterations());
  state.counters["scanned_fraction"] = static_cast<double>(scanned) / keys;
}

void flat_search(benchmark::State& state, bool warm) {
  search_steps(state, flat_index(), {.k = 100}, warm);
}
void projection_search(benchmark::State& state, double target_recall, bool warm) {
  search_steps(state, projection_index(),
               {.k = 100, .projection = {{.target_recall = target_recall}}}, warm);
}

BENCHMARK_CAPTURE(flat_search, warm_start, true);
BENCHMARK_CAPTURE(flat_search, no_warm_start, false);
BENCHMARK_CAPTURE(projection_search, recall95_warm_start, 0.95, true);
BENCHMARK_CAPTURE(projection_search, recall95_no_warm_start, 0.95, false);
BENCHMARK_CAPTURE(projection_search, recall99_warm_start, 0.99, true);
BENCHMARK_CAPTURE(projection_search, recall99_no_warm_start, 0.99, false);

}  // namespace
}  // namespace keyseek::bench
