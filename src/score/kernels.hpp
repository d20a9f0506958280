/// The table of functions that exists once per instruction set.
///
/// Only plain pointers and numbers cross this border, of views the members: the units behind it
/// are compiled with different instruction sets, so nothing they instantiate may be shared. The
/// rest of the library calls the functions of `score/rows.hpp` where there is one.
#pragma once

#include <cstddef>
#include <cstdint>

#include "keyseek/matrix.hpp"
#include "keyseek/score.hpp"

namespace keyseek {

/// A tile of at most kMaxTile encoded queries. Score of key i for query g:
/// scale[g] * key_scale[i] * (sum_j code_ij * query_gj - correction[g]), with codes plus 128.
struct CodeTile {
  static constexpr std::size_t kMaxTile = 8;
  const std::int8_t* queries;  ///< [G, cols], rows without gaps
  const float* scale;
  const std::int32_t* correction;
  std::size_t group;  ///< G
  std::size_t cols;   ///< a multiple of 16
};

/// A range of interleaved blocks: block b holds keys [16 b, 16 b + 16), as pieces of 16 x 4 bytes.
/// Codes of 8 bits: piece p has elements 4 p + t of a key as its bytes t. Codes of 4 bits, of which
/// 8 stands for zero and not 128: elements 8 p + t as their low halves, 8 p + 4 + t as their high
/// halves.
struct CodeBlocks {
  const std::uint8_t* codes;
  const float* scales;  ///< one per key, zero in the padding of the last block
  std::size_t first;    ///< blocks [first, last)
  std::size_t last;
};

/// Where a block scan leaves the keys above a query's threshold, in order of id.
struct ScanSink {
  Id* ids;                 ///< room for 16 * (last - first) of each query
  float* scores;           ///< likewise
  std::size_t stride;      ///< from one query's room to the next's
  const float* threshold;  ///< [G]: keys with a score / scale[g] > threshold / scale[g] are kept
  std::size_t* count;      ///< [G]: written
};

/// Rows of codes, all in one array; `ids` says which, and in which order.
struct CodeRows {
  const std::uint8_t* codes;  ///< rows of the tile's `cols` bytes
  const float* scales;        ///< one per row
  const Id* ids;
  std::size_t count;  ///< ids
};

/// Where scores of code rows go: that of the j-th id for query g to data[g * stride + j].
struct CodeScores {
  float* data;
  std::size_t stride;
};

/// Some rows of a matrix: those that `ids` names in its order, or the first `count` where it is
/// null.
struct RowsView {
  AnyMatrixView matrix;
  const Id* ids;
  std::size_t count;
};

/// Weights of `group` queries for rows: that of row j for query g is data[j * group + g].
struct WeightsView {
  const float* data;
  std::size_t group;
};

/// Stored keys of one element type against f32 queries: out[j * queries.rows + g].
using ScoreRows = void (*)(const RowsView& keys, const MatrixView<float>& queries, float* out);

/// Weighted sums of stored values: sums[g] [cols] += weight of row j for query g * row j.
using AddRows = void (*)(const RowsView& values, const WeightsView& weights, float* sums);

/// All keys of the blocks against the tile.
using Scan = void (*)(const CodeBlocks& blocks, const CodeTile& tile, const ScanSink& sink);

/// Queries of a step, at most.
inline constexpr std::size_t kMaxGroup = 64;

struct Kernels {
  Isa isa;
  ScoreRows score_rows[4];  ///< by Dtype
  void (*score_codes)(const CodeRows& rows, const CodeTile& tile, const CodeScores& out);
  Scan scan_blocks;
  Scan scan_half_blocks;  ///< of 4-bit codes; the tile's correction is for these
  /// Indices j with scores[j] > threshold, ascending, into out (room for n); returns how many.
  std::size_t (*select_above)(const float* scores, std::size_t n, float threshold,
                              std::uint32_t* out);
  /// Keeps, in order, the items above a bar that leaves at_least to at_most of them (all when
  /// there are no more than at_most). Items are distinct; at_least >= 1. Returns how many stay.
  std::size_t (*keep_top)(std::uint64_t* items, std::size_t n, std::size_t at_least,
                          std::size_t at_most, std::uint64_t* bar);
  /// rank[i] = how many of the n distinct items are larger than item i. Quadratic: for short lists.
  void (*rank_descending)(const std::uint64_t* items, std::size_t n, std::uint32_t* rank);
  /// Turns logits [n, group] into exp(scale * (logit - best[g])); writes best[g], the largest
  /// logit of query g, and sum[g] of its weights. n >= 1, group <= kMaxGroup.
  void (*softmax_rows)(float* logits, std::size_t n, std::size_t group, float scale, float* best,
                       float* sum);
  /// Turns inner products into softcap * tanh(scale * product / softcap); softcap > 0.
  void (*cap)(float* products, std::size_t n, float scale, float softcap);
  AddRows add_rows[4];  ///< by Dtype
};

/// One per compiled level, in dispatch.cpp's order.
extern const Kernels kBaselineKernels;
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
extern const Kernels kAvx512VnniKernels;
extern const Kernels kNeonKernels;

/// Functions of the level in use.
[[nodiscard]] const Kernels& kernels();
/// Functions of a level that `available_isas()` lists.
[[nodiscard]] const Kernels& kernels_for(Isa isa);

}  // namespace keyseek
