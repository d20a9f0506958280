/// Inner products of stored keys with f32 queries, on the best instruction set.
///
/// The only room with SIMD. The same short sources are compiled once per
/// instruction set; the best one this CPU runs is chosen on first use and never
/// changes. `KEYSEEK_ISA` (e.g. "avx2") forces another available one; an unknown
/// or unavailable name is an Error(unsupported). Thread-safe; reads views and
/// writes to memory of the caller.
///
///     std::vector<float> out(keys.rows * queries.rows);
///     keyseek::score(keys, queries, out.data());          // out[i * G + g] = <q_g, k_i>
///     float one = keyseek::inner_product(keys, 7, queries.row(0));
#pragma once

#include <cstddef>
#include <span>
#include <string_view>
#include <vector>

#include "keyseek/matrix.hpp"

namespace keyseek {

enum class Isa { baseline, avx2, avx512, avx512_vnni, neon };

/// "baseline", "avx2", "avx512", "avx512_vnni" or "neon".
[[nodiscard]] std::string_view to_string(Isa isa) noexcept;
/// Levels compiled in that this CPU can run, slowest first.
[[nodiscard]] std::vector<Isa> available_isas();
/// The level in use.
[[nodiscard]] Isa active_isa();

/// <query, key i>; `query` holds keys.cols floats.
[[nodiscard]] float inner_product(AnyMatrixView keys, std::size_t i, const float* query);

/// All keys against a tile of G = queries.rows queries: out[i * G + g], keys.rows * G floats.
void score(AnyMatrixView keys, MatrixView<float> queries, float* out);

/// The keys named by `ids` against the tile: out[j * G + g] = <q_g, k_ids[j]>.
/// Every id must be below keys.rows.
void score_ids(AnyMatrixView keys, std::span<const Id> ids, MatrixView<float> queries, float* out);

}  // namespace keyseek
