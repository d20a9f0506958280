// Codes for each instruction set, group and dimension: rows of 8 bits named by ids, as the graph
// search meets them, and interleaved blocks of 8 or 4 bits, as scans do. 4,096 keys.
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "base/random.hpp"
#include "keyseek/key_store.hpp"
#include "made_data.hpp"
#include "score/code_tile.hpp"

namespace keyseek::bench {
namespace {

constexpr std::size_t kKeys = 4096;

KeyStore made_store(std::size_t d, CodeLayout layout) {
  const Matrix<float> keys = made_rows(kKeys, d, 1);
  return KeyStore::encode(AnyMatrixView::of(keys.view()), {}, layout, {.threads = 1});
}

void count_keys(benchmark::State& state, std::size_t keys, std::size_t code_cols) {
  const auto scored = static_cast<std::int64_t>(keys) * state.iterations();
  state.SetItemsProcessed(scored);
  state.SetBytesProcessed(scored * static_cast<std::int64_t>(code_cols));
}

void score_codes(benchmark::State& state, Isa isa, std::size_t group, std::size_t d) {
  constexpr std::size_t kBatch = 256;  // keys that a search scores at once
  const KeyStore store = made_store(d, CodeLayout::rows);
  const EncodedQueries queries = store.encode_queries(made_rows(group, d, 2));
  Random random(3);
  std::vector<Id> ids(kBatch);
  for (Id& id : ids) id = static_cast<Id>(random.below(kKeys));
  std::vector<float> out(group * kBatch);
  const Kernels& kernels = kernels_for(isa);
  for (auto _ : state) {
    kernels.score_codes(code_rows(store, ids), tile_of(queries, 0, group), {out.data(), kBatch});
    benchmark::DoNotOptimize(out.data());
    benchmark::ClobberMemory();
  }
  count_keys(state, kBatch, store.code_cols());
}

using ScanOf = Scan Kernels::*;

/// `threshold`: -infinity keeps every key, infinity none. Any bytes are codes of 4 bits.
void scan_blocks(benchmark::State& state, ScanOf scan, Isa isa, std::size_t group, std::size_t d,
                 float threshold) {
  const KeyStore store = made_store(d, CodeLayout::blocks);
  const EncodedQueries queries = store.encode_queries(made_rows(group, d, 2));
  std::vector<Id> ids(group * kKeys);
  std::vector<float> scores(group * kKeys);
  const std::vector<float> thresholds(group, threshold);
  std::vector<std::size_t> counts(group);
  const CodeBlocks blocks = {store.codes(), store.scales(), 0, kKeys / KeyStore::kBlock};
  const ScanSink sink = {ids.data(), scores.data(), kKeys, thresholds.data(), counts.data()};
  const Kernels& kernels = kernels_for(isa);
  for (auto _ : state) {
    (kernels.*scan)(blocks, tile_of(queries, 0, group), sink);
    benchmark::DoNotOptimize(counts.data());
    benchmark::ClobberMemory();
  }
  count_keys(state, kKeys, scan == &Kernels::scan_blocks ? d : d / 2);
}

constexpr std::size_t kGroups[] = {1, 4, 7}, kDims[] = {64, 128, 256};

[[maybe_unused]] const bool kRegistered = [] {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const Isa isa : available_isas()) {
    for (const std::size_t group : kGroups) {
      for (const std::size_t d : kDims) {
        const auto name = [&](const char* kernel, const char* kept) {
          return fmt::format("{}/{}/G{}/d{}{}", kernel, to_string(isa), group, d, kept);
        };
        const auto add = [](const std::string& as, auto run, auto... args) {
          benchmark::RegisterBenchmark(as.c_str(), run, args...);
        };
        add(name("score_codes", ""), score_codes, isa, group, d);
        for (const auto& [scan, title] :
             {std::pair{&Kernels::scan_blocks, "scan_blocks"},
              std::pair{&Kernels::scan_half_blocks, "scan_half_blocks"}}) {
          add(name(title, "/none_kept"), scan_blocks, scan, isa, group, d, kInfinity);
          add(name(title, "/all_kept"), scan_blocks, scan, isa, group, d, -kInfinity);
        }
      }
    }
  }
  return true;
}();

}  // namespace
}  // namespace keyseek::bench
