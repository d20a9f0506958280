// Selection of the best items, for each instruction set and number of items. `keep_top` works
// in place, so its figure holds a copy of the items as well.
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "made_data.hpp"
#include "score/kernels.hpp"
#include "select/ranked.hpp"

namespace keyseek::bench {
namespace {

std::vector<Ranked> made_items(std::size_t n) {
  const Matrix<float> scores = made_rows(1, n, 1);
  std::vector<Ranked> items(n);
  for (std::size_t i = 0; i < n; ++i) items[i] = ranked(scores.data()[i], static_cast<Id>(i));
  return items;
}

void count_items(benchmark::State& state, std::size_t n) {
  state.SetItemsProcessed(static_cast<std::int64_t>(n) * state.iterations());
}

void keep_top(benchmark::State& state, Isa isa, std::size_t n) {
  constexpr std::size_t kKept = 110;  // what a search for k = 100 reranks
  const std::vector<Ranked> items = made_items(n);
  std::vector<Ranked> kept(n);
  const Kernels& kernels = kernels_for(isa);
  for (auto _ : state) {
    std::copy(items.begin(), items.end(), kept.begin());
    Ranked bar = 0;
    benchmark::DoNotOptimize(kernels.keep_top(kept.data(), n, kKept, kKept + kKept / 16, &bar));
    benchmark::ClobberMemory();
  }
  count_items(state, n);
}

void rank_descending(benchmark::State& state, Isa isa, std::size_t n) {
  const std::vector<Ranked> items = made_items(n);
  std::vector<std::uint32_t> ranks(n);
  const Kernels& kernels = kernels_for(isa);
  for (auto _ : state) {
    kernels.rank_descending(items.data(), n, ranks.data());
    benchmark::DoNotOptimize(ranks.data());
    benchmark::ClobberMemory();
  }
  count_items(state, n);
}

/// One score in six is above the threshold.
void select_above(benchmark::State& state, Isa isa, std::size_t n) {
  const Matrix<float> scores = made_rows(1, n, 1);
  std::vector<std::uint32_t> selected(n);
  const Kernels& kernels = kernels_for(isa);
  for (auto _ : state) {
    benchmark::DoNotOptimize(kernels.select_above(scores.data(), n, 1.0F, selected.data()));
    benchmark::ClobberMemory();
  }
  count_items(state, n);
}

constexpr std::size_t kMany[] = {256, 2048, 16384}, kFew[] = {32, 128, 256};

[[maybe_unused]] const bool kRegistered = [] {
  for (const Isa isa : available_isas()) {
    const auto add = [isa](const char* kernel, auto run, std::size_t n) {
      const auto name = fmt::format("{}/{}/n{}", kernel, to_string(isa), n);
      benchmark::RegisterBenchmark(name.c_str(), run, isa, n);
    };
    for (const std::size_t n : kMany) add("keep_top", keep_top, n);
    for (const std::size_t n : kFew) add("rank_descending", rank_descending, n);
    add("select_above", select_above, 256);
  }
  return true;
}();

}  // namespace
}  // namespace keyseek::bench
