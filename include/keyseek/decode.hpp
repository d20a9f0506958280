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

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
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

class ContainerReader;
class IndexFileWriter;

/// How the indexed tokens of a head are attended.
enum class Retriever : std::uint8_t {
  everything = 0,  ///< exactly, all of them
  none = 1,        ///< by the tail alone
  flat = 2,        ///< the best by a flat index, and the tail
  sketch = 3,      ///< the best by a sketch index, and the tail
  projection = 4,  ///< the best by a projection index, and the tail
  complete = 5,    ///< of a given plan only: sketch where it reads markedly less, else flat
  custom = 6,      ///< the best by the caller's own search, and the tail
};
/// "everything", "none", "flat", "sketch", "projection", "complete" or "custom".
[[nodiscard]] std::string_view to_string(Retriever retriever) noexcept;

/// Which of the keys that were found are attended.
enum class Rule : std::uint8_t {
  top_k = 0,  ///< the k best
  /// DIPR (AlayaDB, arXiv 2504.10326): of these, logits above the largest - limit, where the
  /// largest is seeded by the tokens that are attended exactly.
  dipr = 1,
  /// Top-p (Twilight, arXiv 2502.02770): of these, the fewest that leave no more than 1 - limit
  /// of the mass of all that was seen, the exact tokens included.
  mass = 2,
};
/// "top-k", "dipr" or "mass".
[[nodiscard]] std::string_view to_string(Rule rule) noexcept;

struct StopRule {
  Rule rule = Rule::top_k;
  std::size_t k = 100;    ///< keys searched per query
  double limit = 0;       ///< dipr: in logits, at least 0; mass: in (0, 1]; top_k: unused
  std::size_t least = 0;  ///< keys attended per query at least, whatever the rule says
};

/// A search of the caller's own over indexed keys [n, d]: fills `hits` with up to k ids per
/// query [G, d], best first, and their inner products.
using SearchKeys = std::function<void(MatrixView<float> queries, std::size_t k, Hits& hits)>;
/// Makes one for the keys, whenever they are indexed anew. Steps of different heads call it
/// from different threads; copies of a HeadCache share it.
using IndexKeys = std::function<SearchKeys(const AnyMatrix& keys)>;

/// A plan that the caller makes: `stop` with its k and limit as they are.
struct GivenPlan {
  Retriever retriever = Retriever::complete;
  StopRule stop = {};
  double target_recall = 0.995;  ///< of the projection index's search
};

struct DecodeParams {
  /// Wanted mean of |out - full| / |full| over decode queries, in (0, 1). The plan aims at
  /// `safety` times this on held-out queries of the prompt.
  double max_error = 0.05;
  double safety = 0.8;
  float scale = 0.0F;    ///< of the softmax; must be given, above 0
  float softcap = 0.0F;  ///< of the logits, after scaling: Logits; 0: none
  /// One for each query head of the group, or none: logits that take part in the softmax and have
  /// no value, as in Partial. (Not the tokens of `sink`: those have keys and values.)
  std::vector<float> null_logits = {};
  RopeParams rope = {};
  bool shift = true;           ///< false: queries are not re-rotated (no rotary embedding)
  std::size_t sink = 128;      ///< first tokens, attended exactly
  std::size_t window = 512;    ///< newest tokens, attended exactly
  std::size_t horizon = 1024;  ///< T: tokens decoded between refreshes; attended exactly as well
  /// Tokens of the prompt, between sink and window, that its last queries attend to most
  /// (SnapKV, arXiv 2404.14469): attended exactly from then on.
  std::size_t pinned = 0;
  /// Fewer indexed tokens than this are not worth an index: all are attended.
  std::size_t least_indexed = 1024;
  /// Values of indexed tokens are kept in 8 bits with a scale each: less memory and less to
  /// read, at an error of a few thousandths of the value.
  bool int8_values = false;
  /// A query unlike all that trained the index is answered by a scan:
  /// ProjectionSearchParams::scan_novel.
  bool scan_novel = true;
  /// Of the prompt's positions, the newest ones, whose queries train the index; at least 1,024.
  double share = 0.10;
  std::size_t observed = 256;     ///< positions that train the tail
  std::size_t held_out = 48;      ///< positions that the plan is tried on, of each of two kinds
  std::size_t tail_vectors = 64;  ///< C; 0: no tail
  /// Keys retrieved per query at least. What the prompt's queries did not need may be what an
  /// answer needs (a number hidden in a long text): no summary can give it, a search can.
  std::size_t least_k = 16;
  std::size_t max_k = 512;  ///< keys retrieved per query at most
  /// Most memory, in units of keys and values as stored: how much a projection index may take.
  double max_memory = 1.6;
  Rule rule = Rule::top_k;              ///< whose limit (top_k: whose k) is planned
  std::optional<GivenPlan> given = {};  ///< instead of what keeps max_error
  IndexKeys index = {};                 ///< instead of our indexes, in the plan or as given
  std::uint64_t seed = 1;

  [[nodiscard]] Logits logits() const noexcept { return {scale, softcap}; }
  void validate() const;  ///< throws Error(invalid_argument)
};

/// What was decided for a head, and what it is expected to cost and to give.
struct HeadPlan {
  Retriever retriever = Retriever::everything;
  StopRule stop = {.k = 0};
  double target_recall = 0;       ///< of the search; flat: 1
  std::size_t tail_vectors = 0;   ///< 0: the tail does not help this head
  double expected_error = 0;      ///< on held-out queries, by the search as it is
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

/// What attention leaves in a head.
struct Attended {
  Hits hits;  ///< the next search's warm start
  StepStats stats;
  std::size_t remembered = 0;  ///< positions remembered before it
};

/// Memory that a step works in; one per thread at a time.
struct DecodeScratch {
  SearchScratch search;
  AttendScratch attend;
  Partial part, summary, all;
  std::vector<std::size_t> kept;
  Attended last;  ///< of the step under way
};

/// What searches a head's indexed keys: one of these, or none.
struct HeadIndex {
  Index index;
  SearchKeys custom;

  [[nodiscard]] bool empty() const { return index.empty() && !custom; }
};

/// Rows that grow at the end and shrink at the front, stored in an element type.
class StoredRows {
 public:
  StoredRows() = default;
  explicit StoredRows(AnyMatrixView rows);  ///< copies; not i8

  /// Throws Error(not_finite) that names `name` when an element of a row of f32 is NaN or
  /// infinite, or becomes so as it is stored.
  void check(const float* row, const char* name) const;
  void make_room();                        ///< for one more row
  void append(const float* row) noexcept;  ///< into the room that was made
  void drop_back() noexcept { --rows_; }   ///< the newest row
  /// All rows but the first `count`.
  [[nodiscard]] StoredRows without_front(std::size_t count) const;
  [[nodiscard]] AnyMatrixView view() const;
  [[nodiscard]] std::size_t rows() const noexcept { return rows_; }
  [[nodiscard]] Dtype dtype() const noexcept { return dtype_; }
  [[nodiscard]] std::size_t bytes() const noexcept { return rows_ * row_bytes(); }

 private:
  [[nodiscard]] std::size_t row_bytes() const noexcept { return cols_ * size_of(dtype_); }

  std::vector<std::byte> data_;  ///< the rows, and room for more
  Dtype dtype_ = Dtype::f32;
  std::size_t rows_ = 0, cols_ = 0;
};

/// What a device holds beside a HeadCache: the first `sink` tokens, and the newest `window`, from
/// old to new. Views of the cache's memory, until its next step.
struct StaticPart {
  AnyMatrixView sink_keys, sink_values;      ///< [sink, d], [sink, dv]
  AnyMatrixView window_keys, window_values;  ///< [at most window, d], [.., dv]
};

/// Says that a value is at work, so that whoever else comes is refused. A copy starts idle.
class Occupancy {
 public:
  Occupancy() = default;
  Occupancy(const Occupancy& other) { other.require_idle(); }
  Occupancy(Occupancy&&) noexcept {}
  Occupancy& operator=(const Occupancy& other) {
    other.require_idle();
    return *this;
  }
  Occupancy& operator=(Occupancy&&) noexcept { return *this; }
  ~Occupancy() = default;

  /// False when somebody else is at work.
  [[nodiscard]] bool enter() noexcept { return !busy_.exchange(true, std::memory_order_acquire); }
  void leave() noexcept { busy_.store(false, std::memory_order_release); }
  void require_idle() const;  ///< throws Error

  bool done = false;  ///< a note of who is at work

 private:
  std::atomic<bool> busy_ = false;
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

  /// Takes a token: `key` [d] and `value` [dv] in f32, stored like the others. Refreshes first
  /// when a horizon is full.
  void append(const float* key, const float* value);
  /// Writes to `out` [group, dv] the attention of `queries` [group, d], those of the newest token,
  /// over all tokens.
  void attend(MatrixView<float> queries, DecodeScratch& scratch, float* out);
  /// `append`, then `attend`: both or neither.
  void step(MatrixView<float> queries, const float* key, const float* value, DecodeScratch& scratch,
            float* out);

  /// `step` beside a device that attends to the static part, this token included: writes to `out`
  /// [group, dv] the partial attention over all other tokens, and to `lse` [group] its logarithm of
  /// sums. The cache keeps what the device holds, so that it refreshes as `step` would and may go
  /// on alone. DIPR and mass do not see the static part, and keep no fewer keys for it.
  void step_beside_static(MatrixView<float> queries, const float* key, const float* value,
                          DecodeScratch& scratch, float* out, float* lse);
  /// Throws Error when the prompt was shorter than the sink.
  [[nodiscard]] StaticPart static_part() const;

  /// The k best indexed tokens found for each query, without attending; hits.ids are positions
  /// in the sequence. Throws Error when the plan of this head has no index.
  void retrieve(MatrixView<float> queries, std::size_t k, DecodeScratch& scratch, Hits& hits) const;

  /// Moves all but the window into the index and plans again; `step` does so when a horizon is
  /// full. A head that retrieves waits until it has seen queries of 64 positions to plan with.
  void refresh(const Execution& run = {});

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

  [[nodiscard]] const HeadPlan& plan() const noexcept { return plan_; }
  [[nodiscard]] const StepStats& stats() const noexcept {
    return last_.stats;
  }  ///< of the last step
  [[nodiscard]] const DecodeParams& params() const noexcept { return params_; }
  [[nodiscard]] std::size_t tokens() const noexcept;
  [[nodiscard]] std::size_t indexed() const noexcept { return indexed_values_.rows(); }
  /// Positions of the pinned tokens, increasing.
  [[nodiscard]] const std::vector<std::size_t>& pinned() const noexcept { return pinned_; }
  [[nodiscard]] std::size_t group() const noexcept { return group_; }
  [[nodiscard]] std::size_t dim() const noexcept { return dim_; }
  [[nodiscard]] std::size_t value_dim() const noexcept { return value_dim_; }
  [[nodiscard]] const Tail& tail() const noexcept { return tail_; }
  /// All memory: keys, values, index, tail, remembered queries.
  [[nodiscard]] std::size_t bytes() const;

 private:
  void write(IndexFileWriter& file) const;
  [[nodiscard]] static HeadCache read(const ContainerReader& file);
  void read_tokens(const ContainerReader& file);
  void read_rest(const ContainerReader& file);
  void pin(AnyMatrixView keys, AnyMatrixView values, MatrixView<float> queries);
  void refresh_remembered(const Execution& run);
  void refresh_with(MatrixView<float> queries, std::span<const std::size_t> positions,
                    const Execution& run);
  [[nodiscard]] bool can_refresh() const noexcept;
  [[nodiscard]] ValuesView indexed_values() const;
  /// Tokens at the front of sink_keys_ that are not pinned.
  [[nodiscard]] std::size_t sink() const noexcept { return sink_keys_.rows() - pinned_.size(); }
  // Of heads that are occupied: what the public functions do, and how it is undone.
  friend class OccupiedHeads;
  void take_token(const float* key, const float* value);
  void drop_token() noexcept;
  void attend_all(MatrixView<float> queries, DecodeScratch& scratch, float* out);
  void forget_attention() noexcept;
  void step_over_all(MatrixView<float> queries, const float* key, const float* value,
                     DecodeScratch& scratch, float* out);
  void step_over_rest(MatrixView<float> queries, const float* key, const float* value,
                      DecodeScratch& scratch, float* out, float* lse);
  void undo_step() noexcept;
  void require_queries(MatrixView<float> queries) const;
  void make_room_to_remember();
  void attend_but(std::size_t sink, std::size_t window, MatrixView<float> queries,
                  DecodeScratch& scratch) const;
  void attend_indexed(MatrixView<float> queries, DecodeScratch& scratch, Partial& into) const;
  void retrieve_for(MatrixView<float> queries, DecodeScratch& scratch) const;
  void accept(MatrixView<float> queries, DecodeScratch& scratch) noexcept;

  Occupancy occupancy_;  ///< first, so that a head at work is not copied

  DecodeParams params_;
  std::size_t group_ = 0, dim_ = 0, value_dim_ = 0;
  AnyMatrix sink_keys_, sink_values_;        ///< pinned tokens follow the sink
  std::vector<std::size_t> pinned_;          ///< their positions
  AnyMatrix indexed_keys_, indexed_values_;  ///< keys share the index's memory
  std::vector<float> value_scales_;          ///< of indexed values in 8 bits
  HeadIndex index_;
  Tail tail_;
  HeadPlan plan_;
  StoredRows recent_keys_, recent_values_;
  std::vector<float> remembered_;  ///< queries of some decoded positions, for the next refresh
  std::vector<std::size_t> remembered_at_;  ///< their positions
  Attended last_, before_;                  ///< of the last step, and of the one before
};

/// Threads, and the memory they work in, for step_heads: started at first use, then waiting
/// between calls. Serves any number of callers at once, which share the threads; a body may call
/// it again. A process that forks is safe: the child starts threads of its own.
class DecodePool {
 public:
  /// 0: as many threads as this process may use. The caller's own is one of them. `executor`: whose
  /// they are; null: OpenMP's where keyseek has them, else the pool's own.
  explicit DecodePool(int threads = 1, std::shared_ptr<Executor> executor = {});
  ~DecodePool();
  DecodePool(DecodePool&&) noexcept;
  DecodePool& operator=(DecodePool&&) noexcept;

  [[nodiscard]] int threads() const noexcept;
  /// body(i, scratch) for all i < count, in any order; rethrows the first error.
  void run(std::size_t count, const std::function<void(std::size_t, DecodeScratch&)>& body);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Many heads at once: all KV heads of all requests of a layer, or any of them. Heads share group,
// d and dv; each is named once. `queries` are [heads * group, d], `keys` [heads, d], `values`
// [heads, dv], all f32; `out` is [heads * group, dv]. When one throws, its error leaves all
// heads as they were.

/// HeadCache::append of each.
void append_heads(std::span<HeadCache* const> heads, MatrixView<float> keys,
                  MatrixView<float> values, DecodePool& pool);

/// HeadCache::attend of each.
void attend_heads(std::span<HeadCache* const> heads, MatrixView<float> queries, DecodePool& pool,
                  float* out);

/// HeadCache::step of each.
void step_heads(std::span<HeadCache* const> heads, MatrixView<float> queries,
                MatrixView<float> keys, MatrixView<float> values, DecodePool& pool, float* out);

/// HeadCache::step_beside_static of each; `lse` [heads * group].
void step_heads_beside_static(std::span<HeadCache* const> heads, MatrixView<float> queries,
                              MatrixView<float> keys, MatrixView<float> values, DecodePool& pool,
                              float* out, float* lse);

}  // namespace keyseek
