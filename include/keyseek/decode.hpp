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
/// with fresh training queries, and plans anew: within a step, or, with params.refresh_delay,
/// beside the steps. Tokens that come at once (`extend`) are attended
/// exactly; those that should not have come are taken back (`truncate`). A device beside a head is
/// then to be loaded anew.
///
/// A HeadCache is a value for one thread at a time; a second one that comes meanwhile is refused.
/// Different heads are independent. Copies share what was indexed (a common prompt) and go
/// separate ways. What throws leaves a head as it was; only a refresh that was due may be done.
///
///     keyseek::DecodeParams params{.max_error = 0.05, .scale = 0.0625F, .rope = {.theta = 1e6}};
///     auto cache = keyseek::HeadCache::prefill(keys, values, queries, 4, params);
///     keyseek::DecodeScratch scratch;
///     keyseek::Matrix<float> out(4, cache.value_dim());
///     cache.step(step_queries, key, value, scratch, out.data());  // append, then attend
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "keyseek/decode_params.hpp"
#include "keyseek/execution.hpp"
#include "keyseek/matrix.hpp"
#include "keyseek/pages.hpp"
#include "keyseek/search.hpp"
#include "keyseek/tail.hpp"

namespace keyseek {

/// How many of the keys found are attended.
struct StopRule {
  Rule rule = Rule::top_k;
  std::size_t k = 100;    ///< keys searched per query
  double limit = 0;       ///< dipr: in logits, at least 0; mass: in (0, 1]; top_k: unused
  std::size_t least = 0;  ///< keys attended per query at least, whatever the rule says
};

/// What was decided for a head, and what it is expected to cost and to give.
struct HeadPlan {
  Retriever retriever = Retriever::everything;
  StopRule stop = {.k = 0};
  double target_recall = 0;       ///< of the search; flat: 1
  std::size_t tail_vectors = 0;   ///< 0: the tail does not help this head
  double expected_error = 0;      ///< on held-out queries: mean, or what `confidence` asks for
  double planted_error = 0;       ///< the largest on planted queries, by the search as it is
  double error_without_tail = 0;  ///< by the same rule, exact keys
  double keys_per_query = 0;      ///< vectors attended beyond the exact tokens, tail included
  double bytes_per_step = 0;      ///< read for the indexed tokens: search, attention, tail
};

struct StepStats {
  std::size_t exact = 0;       ///< tokens attended exactly
  std::size_t scanned = 0;     ///< keys that the search looked at
  std::size_t retrieved = 0;   ///< keys attended, over all queries of the group
  std::size_t bytes_read = 0;  ///< of search, attention and tail
  double search_us = 0;        ///< time of the search
  double attend_us = 0;        ///< time of attention over all parts, and of their merge
  double total_us = 0;         ///< of the step, a refresh included
};

/// What a device holds beside a HeadCache: the first `sink` tokens, and the newest `window`, from
/// old to new. Views of the cache's memory, until its next step.
struct StaticPart {
  AnyMatrixView sink_keys, sink_values;      ///< [sink, d], [sink, dv]
  AnyMatrixView window_keys, window_values;  ///< [at most window, d], [.., dv]
};

/// Memory that a step works in; one per thread at a time.
class DecodeScratch {
 public:
  DecodeScratch() noexcept;
  DecodeScratch(DecodeScratch&& other) noexcept;
  DecodeScratch& operator=(DecodeScratch&& other) noexcept;
  ~DecodeScratch();

  struct State;  ///< what the library sees of it

 private:
  std::unique_ptr<State> state_;  ///< made at first use
};

class RefreshTask;

/// A refresh that a head has begun, from a copy of itself. Whoever has a thread to spare plans it;
/// else the head does when it adopts it. Which of them did does not show in what comes of it.
class Refresh {
 public:
  Refresh() noexcept = default;  ///< none: `run` does nothing
  /// Plans, unless somebody does or has; on any thread. Where run.progress stops it, another may go
  /// on. What fails is thrown where the head adopts it.
  void run(const Execution& run = {}) const;
  [[nodiscard]] bool done() const noexcept;  ///< so that adopting it will not wait

 private:
  friend class HeadCache;
  explicit Refresh(std::shared_ptr<RefreshTask> task) noexcept : task_(std::move(task)) {}

  std::shared_ptr<RefreshTask> task_;
};

class HeadCache {
 public:
  HeadCache() noexcept;  ///< empty; using it is an Error
  /// Throws Error when another thread is at work on `other`.
  HeadCache(const HeadCache& other);
  HeadCache(HeadCache&& other) noexcept;
  HeadCache& operator=(const HeadCache& other);
  HeadCache& operator=(HeadCache&& other) noexcept;
  ~HeadCache();

  /// `keys` [n, d] and `values` [n, dv] of all tokens of the prompt, copied; `queries`
  /// [p * group, d] of its newest p positions n - p .. n - 1, the heads of a position in
  /// consecutive rows; params.plan_positions(n) of them are looked at. Few positions (or none)
  /// leave nothing to plan with: then everything is attended. Throws Error on shapes that do not
  /// match, NaN or infinity.
  [[nodiscard]] static HeadCache prefill(AnyMatrixView keys, AnyMatrixView values,
                                         MatrixView<float> queries, std::size_t group,
                                         const DecodeParams& params, const Execution& run = {});

  /// The same over tokens that stay where they are, in pages: `keys` and `values` say where pages
  /// are, `pages` which of them hold the first `tokens` tokens, in order. What a search needs of
  /// them is made here; all else is read in place at every step. The results are those of
  /// `prefill`, and so are a saved file and what is loaded from it. Throws Error, too, when pages
  /// lie outside the memory, are named twice or do not have room for the tokens.
  [[nodiscard]] static HeadCache borrow(const RowPages& keys, const RowPages& values,
                                        std::span<const Id> pages, std::size_t tokens,
                                        MatrixView<float> queries, std::size_t group,
                                        const DecodeParams& params, const Execution& run = {});

  /// Takes tokens that were written into the pages of a head that borrows: the next `tokens` ones,
  /// where `pages` follow those that it has (pages may be named before they are written). Reads
  /// them once, and throws Error when they are not finite or have no page. `queries` and refreshes
  /// as in `append`, which such a head refuses.
  void announce(std::size_t tokens, std::span<const Id> pages = {}, MatrixView<float> queries = {});
  /// `announce` of one token, then `attend`: both or neither. `queries` [group, d] of any type but
  /// i8.
  void step_announced(AnyMatrixView queries, std::span<const Id> pages, DecodeScratch& scratch,
                      float* out);
  /// `announce`, then `extend`: of as many tokens as `queries` [m * group, d], of any type but i8,
  /// are for.
  void extend_announced(AnyMatrixView queries, std::span<const Id> pages, DecodeScratch& scratch,
                        float* out);

  /// Takes a token: `key` [d] and `value` [dv] in f32, stored like the others. Refreshes first
  /// when a horizon is full.
  void append(const float* key, const float* value);
  /// Takes tokens, `keys` [m, d] and `values` [m, dv], refreshing at most once. `queries`
  /// [m * group, d], or none: theirs, which the caller answered with `copy_tokens`, for the next
  /// plan to see.
  void append(MatrixView<float> keys, MatrixView<float> values, MatrixView<float> queries = {});
  /// Writes to `out` [group, dv] the attention of `queries` [group, d], those of the newest token,
  /// over all tokens.
  void attend(MatrixView<float> queries, DecodeScratch& scratch, float* out);
  /// The same for queries of any type but i8.
  void attend(AnyMatrixView queries, DecodeScratch& scratch, float* out);
  /// `append`, then `attend`: both or neither.
  void step(MatrixView<float> queries, const float* key, const float* value, DecodeScratch& scratch,
            float* out);
  /// Takes a turn, tokens that come at once (a user's next words, the drafts of a speculative
  /// decoder): `queries` [m * group, d], `keys` [m, d], `values` [m, dv]. Writes to `out`
  /// [m * group, dv] the exact attention of each over all tokens up to it. All or nothing.
  void extend(MatrixView<float> queries, MatrixView<float> keys, MatrixView<float> values,
              DecodeScratch& scratch, float* out);
  /// Takes tokens back: the first `tokens`, at least 1, stay. Where indexed ones go, the index is
  /// cut. The tail goes too, since it was trained on what is no longer there; a plan that needs it,
  /// and one for too few tokens, becomes `everything` until the next refresh. A head that borrows
  /// forgets pages that hold none of the tokens that stay.
  void truncate(std::size_t tokens);
  /// Writes all tokens in order of position: to `keys` [tokens, d] as `key_dtype`, to `values`
  /// [tokens, dv] as `value_dtype`, decoded where they are kept in 8 bits.
  void copy_tokens(void* keys, void* values) const;

  /// `step` beside a device that attends to the static part, this token included: writes to `out`
  /// [group, dv] the partial attention over all other tokens, and to `lse` [group] its logarithm of
  /// sums. The cache keeps what the device holds, so that it refreshes as `step` would and may go
  /// on alone. DIPR and mass do not see the static part, and keep no fewer keys for it.
  void step_beside_static(MatrixView<float> queries, const float* key, const float* value,
                          DecodeScratch& scratch, float* out, float* lse);
  /// Throws Error when the prompt was shorter than the sink, or the head borrows.
  [[nodiscard]] StaticPart static_part() const;

  /// The k best indexed tokens found for each query, without attending; hits.ids are positions
  /// in the sequence. Throws Error when the plan of this head has no index.
  void retrieve(MatrixView<float> queries, std::size_t k, DecodeScratch& scratch, Hits& hits) const;

  /// Moves all but the window into the index and plans again; `step` does so when a horizon is
  /// full. A head that retrieves waits until it has seen queries of 64 positions to plan with. One
  /// that is under way is adopted first.
  void refresh(const Execution& run = {});
  /// Begins a refresh of the head as it is, or gives the one under way; with params.refresh_delay
  /// `step` begins it when a horizon is full. It is adopted before the token that comes
  /// params.refresh_delay later, whether or not it is done by then, and until then the head goes on
  /// as if there were none. None where `refresh` would do nothing. Copies share it and adopt it
  /// each for itself; a file does not have it, so that what is loaded begins it again; truncating
  /// below the tokens that it began with drops it. Where planning throws, what adopts it throws
  /// that, takes no token, and the next try plans again.
  Refresh begin_refresh();
  /// Adopts the refresh under way now, waiting for it; without one does nothing.
  void adopt_refresh();
  [[nodiscard]] bool refreshing() const noexcept;  ///< whether one is under way

  /// Everything, so that a prompt is read and planned once: docs/index-format.md. Throws Error
  /// when a search of the caller's own is part of it.
  void save(const std::filesystem::path& path) const;
  /// Reads and checks everything.
  [[nodiscard]] static HeadCache load(const std::filesystem::path& path);
  /// Maps the file: what is indexed is shared with others who map it, and may be evicted.
  [[nodiscard]] static HeadCache map(const std::filesystem::path& path);
  /// What `save` would write, to be sent or kept elsewhere, and its way back.
  [[nodiscard]] std::vector<std::byte> to_bytes() const;
  [[nodiscard]] static HeadCache from_bytes(std::span<const std::byte> bytes);

  [[nodiscard]] const HeadPlan& plan() const noexcept;
  [[nodiscard]] const StepStats& stats() const noexcept;  ///< of the last step
  [[nodiscard]] const DecodeParams& params() const noexcept;
  [[nodiscard]] std::size_t tokens() const noexcept;
  [[nodiscard]] std::size_t indexed() const noexcept;
  /// Positions of the pinned tokens, increasing.
  [[nodiscard]] const std::vector<std::size_t>& pinned() const noexcept;
  [[nodiscard]] std::size_t group() const noexcept;
  [[nodiscard]] std::size_t dim() const noexcept;
  [[nodiscard]] std::size_t value_dim() const noexcept;
  /// f32, f16 or bf16.
  [[nodiscard]] Dtype key_dtype() const noexcept;
  [[nodiscard]] Dtype value_dtype() const noexcept;
  [[nodiscard]] const Tail& tail() const noexcept;
  /// All memory: keys, values, index, tail, remembered queries; of borrowed tokens, 4 bytes each
  /// that say where they are.
  [[nodiscard]] std::size_t bytes() const;
  /// What full attention reads of the indexed tokens in a step: their keys and values, in the types
  /// that they came in (int8_values is ours).
  [[nodiscard]] std::size_t full_bytes() const noexcept;

  struct State;  ///< what the library sees of it

 private:
  explicit HeadCache(std::unique_ptr<State> state) noexcept;
  [[nodiscard]] static HeadCache of_prompt(std::unique_ptr<State> state, const AnyMatrix& keys,
                                           const AnyMatrix& values, MatrixView<float> queries,
                                           std::size_t group, const DecodeParams& params,
                                           const Execution& run);

  std::unique_ptr<State> state_;
};

}  // namespace keyseek
