/// Decoding with retrieval: one KV head's cache, planned after prefill, asked at every step.
///
/// The tokens of a head are in two places. The first `sink` and the newest ones (the window and
/// all that were decoded since the last refresh) are attended exactly. Those between are
/// *indexed*: of them, each step attends to the keys that a search finds, and to a tail that
/// stands for the rest. How is decided by a plan: after prefill, a few hundred of the prompt's
/// own last queries, moved to where decoding will happen, are answered in full and in several
/// cheaper ways, and the cheapest that keeps `max_error` on queries not used for training wins.
/// A head for which none does attends to everything.
///
/// When a horizon of tokens has been decoded, `refresh` moves them into the index, together
/// with fresh training queries, and plans anew.
///
/// A HeadCache is a value; `step` and `refresh` are for one thread at a time, different heads
/// are independent. Copies share what was indexed (a common prompt) and go separate ways.
///
///     keyseek::DecodeParams params{.max_error = 0.05, .scale = 0.0625F, .rope = {.theta = 1e6}};
///     auto cache = keyseek::HeadCache::prefill(keys, values, queries, 4, params);
///     keyseek::DecodeScratch scratch;
///     keyseek::Matrix<float> out(4, cache.value_dim());
///     cache.step(step_queries, key, value, scratch, out.data());  // appends, then attends
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "keyseek/attention.hpp"
#include "keyseek/execution.hpp"
#include "keyseek/index.hpp"
#include "keyseek/matrix.hpp"
#include "keyseek/rope.hpp"
#include "keyseek/tail.hpp"

namespace keyseek {

/// How the indexed tokens of a head are attended.
enum class Retriever : std::uint8_t {
  everything = 0,  ///< exactly, all of them
  none = 1,        ///< by the tail alone
  flat = 2,        ///< the k best by FlatIndex, and the tail
  projection = 3,  ///< the k best by ProjectionIndex, and the tail
};
/// "everything", "none", "flat" or "projection".
[[nodiscard]] std::string_view to_string(Retriever retriever) noexcept;

struct DecodeParams {
  /// Wanted mean of |out - full| / |full| over decode queries, in (0, 1). The plan aims at
  /// `safety` times this on held-out queries of the prompt.
  double max_error = 0.05;
  double safety = 0.7;
  float scale = 0.0F;  ///< of the softmax; must be given, above 0
  RopeParams rope = {};
  bool shift = true;           ///< false: queries are not re-rotated (no rotary embedding)
  std::size_t sink = 128;      ///< first tokens, attended exactly
  std::size_t window = 512;    ///< newest tokens, attended exactly
  std::size_t horizon = 1024;  ///< T: tokens decoded between refreshes; attended exactly as well
  /// Fewer indexed tokens than this are not worth an index: all are attended.
  std::size_t least_indexed = 1024;
  double share = 0.10;            ///< of the prompt's positions whose queries train the index
  std::size_t observed = 256;     ///< positions that train the tail
  std::size_t held_out = 64;      ///< positions that the plan is tried on
  std::size_t tail_vectors = 64;  ///< C; 0: no tail
  /// Keys retrieved per query at least. What the prompt's queries did not need may be what an
  /// answer needs (a number hidden in a long text): no summary can give it, a search can.
  std::size_t least_k = 16;
  std::size_t max_k = 512;  ///< keys retrieved per query at most
  std::uint64_t seed = 1;

  void validate() const;  ///< throws Error(invalid_argument)
};

/// What was decided for a head, and what it is expected to cost and to give.
struct HeadPlan {
  Retriever retriever = Retriever::everything;
  std::size_t k = 0;              ///< keys retrieved per query
  double target_recall = 0;       ///< of the search; flat: 1
  std::size_t tail_vectors = 0;   ///< 0: the tail does not help this head
  double expected_error = 0;      ///< on held-out queries, by the search as it is
  double error_without_tail = 0;  ///< for the same k, exact keys
  double keys_per_query = 0;      ///< vectors attended beyond the exact tokens, tail included
  double bytes_per_step = 0;      ///< read for the indexed tokens: search, attention, tail
};

/// Memory that a step works in; one per thread at a time.
struct DecodeScratch {
  SearchScratch search;
  AttendScratch attend;
  Partial part, summary, all;
};

struct StepStats {
  std::size_t exact = 0;       ///< tokens attended exactly
  std::size_t scanned = 0;     ///< keys that the search looked at
  std::size_t retrieved = 0;   ///< keys attended, over all queries of the group
  std::size_t bytes_read = 0;  ///< of search, attention and tail
};

class HeadCache {
 public:
  HeadCache() = default;  ///< empty; using it is an Error
  /// `keys` [n, d] and `values` [n, dv] of all tokens of the prompt, copied; `queries`
  /// [p * group, d] of its newest p positions n - p .. n - 1, the heads of a position in
  /// consecutive rows. Few positions (or none) leave nothing to plan with: then everything is
  /// attended. Throws Error on shapes that do not match, NaN or infinity.
  [[nodiscard]] static HeadCache prefill(AnyMatrixView keys, AnyMatrixView values,
                                         MatrixView<float> queries, std::size_t group,
                                         const DecodeParams& params, const Execution& run = {});

  /// Appends a token, `key` [d] and `value` [dv] in f32 (stored like the others), then writes
  /// to `out` [group, dv] the attention of `queries` [group, d] over all tokens. Refreshes first
  /// when a horizon is full.
  void step(MatrixView<float> queries, const float* key, const float* value, DecodeScratch& scratch,
            float* out);

  /// The k best indexed tokens found for each query, without attending; hits.ids are positions
  /// in the sequence. Throws Error when the plan of this head has no index.
  void retrieve(MatrixView<float> queries, std::size_t k, DecodeScratch& scratch, Hits& hits) const;

  /// Moves all but the window into the index and plans again; `step` does so when a horizon is
  /// full. A head that retrieves waits until it has seen queries of 64 positions to plan with.
  void refresh(const Execution& run = {});

  [[nodiscard]] const HeadPlan& plan() const noexcept { return plan_; }
  [[nodiscard]] const StepStats& stats() const noexcept { return stats_; }  ///< of the last step
  [[nodiscard]] std::size_t tokens() const noexcept;
  [[nodiscard]] std::size_t indexed() const noexcept { return indexed_values_.rows(); }
  [[nodiscard]] std::size_t group() const noexcept { return group_; }
  [[nodiscard]] std::size_t dim() const noexcept { return dim_; }
  [[nodiscard]] std::size_t value_dim() const noexcept { return value_dim_; }
  [[nodiscard]] const Tail& tail() const noexcept { return tail_; }
  /// All memory: keys, values, index, tail, remembered queries.
  [[nodiscard]] std::size_t bytes() const;

 private:
  void refresh_with(MatrixView<float> queries, std::span<const std::size_t> positions,
                    const Execution& run);
  [[nodiscard]] bool can_refresh() const noexcept;
  void attend_indexed(MatrixView<float> queries, DecodeScratch& scratch, Partial& into);
  void remember(MatrixView<float> queries);

  DecodeParams params_;
  std::size_t group_ = 0, dim_ = 0, value_dim_ = 0;
  AnyMatrix sink_keys_, sink_values_;
  AnyMatrix indexed_keys_, indexed_values_;  ///< keys share the index's memory
  std::optional<FlatIndex> flat_;
  std::optional<ProjectionIndex> projection_;
  Tail tail_;
  HeadPlan plan_;
  std::vector<std::byte> recent_keys_, recent_values_;  ///< rows as stored
  Dtype key_dtype_ = Dtype::f32, value_dtype_ = Dtype::f32;
  std::size_t recent_ = 0;         ///< tokens in them
  std::vector<float> remembered_;  ///< queries of some decoded positions, for the next refresh
  std::vector<std::size_t> remembered_at_;  ///< their positions
  Hits hits_;                               ///< of the last step: the next one's warm start
  StepStats stats_;
};

/// `step` of many heads at once: all KV heads of all requests of a layer, over `threads` threads.
/// Heads share group, d and dv. `queries` [heads * group, d], `keys` [heads, d], `values`
/// [heads, dv] f32; writes `out` [heads * group, dv]. `scratch` grows to one per thread.
/// Throws the first Error; heads before it may have taken their token by then.
void step_heads(std::span<HeadCache* const> heads, MatrixView<float> queries,
                MatrixView<float> keys, MatrixView<float> values, int threads,
                std::vector<DecodeScratch>& scratch, float* out);

}  // namespace keyseek
