// Stored keys against f32 queries, for each instruction set, element type, group and dimension:
// 1,024 keys, which stay in the cache.
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <cstdint>
#include <vector>

#include "made_data.hpp"
#include "score/kernels.hpp"

namespace keyseek::bench {
namespace {

void score_rows(benchmark::State& state, Isa isa, Dtype dtype, std::size_t group, std::size_t d) {
  constexpr std::size_t kKeys = 1024;
  const AnyMatrix keys = stored_as(dtype, made_rows(kKeys, d, 1));
  const Matrix<float> queries = made_rows(group, d, 2);
  std::vector<float> out(kKeys * group);
  const ScoreRows score = kernels_for(isa).score_rows[static_cast<std::size_t>(dtype)];
  for (auto _ : state) {
    score({keys.view(), nullptr, kKeys}, queries, out.data());
    benchmark::DoNotOptimize(out.data());
    benchmark::ClobberMemory();
  }
  const auto scored = static_cast<std::int64_t>(kKeys) * state.iterations();
  state.SetItemsProcessed(scored);
  state.SetBytesProcessed(scored * static_cast<std::int64_t>(d * size_of(dtype)));
}

constexpr std::size_t kGroups[] = {1, 4}, kDims[] = {64, 128, 256};

[[maybe_unused]] const bool kRegistered = [] {
  for (const Isa isa : available_isas()) {
    for (const Dtype dtype : {Dtype::f32, Dtype::f16, Dtype::bf16, Dtype::i8}) {
      for (const std::size_t group : kGroups) {
        for (const std::size_t d : kDims) {
          const auto name =
              fmt::format("score_rows/{}/{}/G{}/d{}", to_string(isa), to_string(dtype), group, d);
          benchmark::RegisterBenchmark(name.c_str(), score_rows, isa, dtype, group, d);
        }
      }
    }
  }
  return true;
}();

}  // namespace
}  // namespace keyseek::bench
