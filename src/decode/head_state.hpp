/// What a HeadCache and a DecodeScratch are made of.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "decode/head_index.hpp"
#include "decode/occupancy.hpp"
#include "decode/page_table.hpp"
#include "decode/stored_rows.hpp"
#include "decode/tokens.hpp"
#include "keyseek/decode.hpp"

namespace keyseek {

class RefreshTask;

/// What attention leaves in a head.
struct Attended {
  Hits hits;  ///< the next search's warm start
  StepStats stats;
  std::size_t remembered = 0;  ///< positions remembered before it
};

struct DecodeScratch::State {
  SearchScratch search;
  AttendScratch attend;
  Partial part, summary, all;
  std::vector<std::size_t> kept;
  Attended last;  ///< of the step under way
  Matrix<float> queries;

  /// Queries in f32: those of another type in memory that is reused. Throws Error for i8.
  [[nodiscard]] MatrixView<float> widened(AnyMatrixView rows);

  [[nodiscard]] static State& of(DecodeScratch& scratch);
};

/// Tokens, plan and what it uses. Its functions are for whoever occupies the head; each leaves it
/// as it was when it throws, but for a refresh that was due.
struct HeadCache::State {
  Occupancy occupancy;

  DecodeParams params;
  std::size_t group = 0, dim = 0, value_dim = 0;
  AnyMatrix sink_keys, sink_values;        ///< pinned tokens follow the sink
  std::vector<std::size_t> pinned;         ///< their positions
  AnyMatrix indexed_keys, indexed_values;  ///< keys share the index's memory
  std::vector<float> value_scales;         ///< of indexed values in 8 bits
  HeadIndex index;
  Tail tail;
  HeadPlan plan;
  StoredRows recent_keys, recent_values;
  std::optional<PageTable> pages;  ///< where keys and values are borrowed
  std::vector<float> remembered;   ///< queries of some decoded positions, for the next refresh
  std::vector<std::size_t> remembered_at;  ///< their positions
  Attended last, before;                   ///< of the last step, and of the one before
  std::shared_ptr<RefreshTask> pending;    ///< a refresh under way, if there is one

  /// Both throw Error when the head is empty.
  [[nodiscard]] static State& of(HeadCache& head);
  [[nodiscard]] static const State& of(const HeadCache& head);
  /// To be looked at; of an empty head one of no size.
  [[nodiscard]] static const State& seen(const HeadCache& head) noexcept;

  [[nodiscard]] std::size_t indexed() const noexcept { return indexed_values.rows(); }
  [[nodiscard]] std::size_t tokens() const noexcept {
    return sink_keys.rows() + indexed() + recent_keys.rows();
  }
  /// Tokens at the front of sink_keys that are not pinned.
  [[nodiscard]] std::size_t sink() const noexcept { return sink_keys.rows() - pinned.size(); }
  [[nodiscard]] ValuesView values_of_indexed() const {
    return {indexed_values.view(), value_scales.empty() ? nullptr : value_scales.data()};
  }
  [[nodiscard]] Tokens pieces() const;
  [[nodiscard]] std::size_t bytes() const;
  [[nodiscard]] std::size_t full_bytes() const noexcept {
    return indexed() *
           (dim * size_of(recent_keys.dtype()) + value_dim * size_of(recent_values.dtype()));
  }

  // head_tokens.cpp
  /// Checks tokens, of which there may be none, and takes them; refreshes first when a horizon is
  /// full. With `queries` of all of them, or none, to be remembered.
  void take_tokens(MatrixView<float> keys, MatrixView<float> values, MatrixView<float> queries);
  /// Likewise, of tokens that somebody wrote into pages, those that `more` names included.
  void take_written(std::size_t count, std::span<const Id> more, MatrixView<float> queries);
  void undo_written(std::size_t count) noexcept;  ///< the last ones, and their pages
  void drop_tokens(std::size_t count) noexcept;   ///< the newest, all of them recent
  void copy_tokens(void* keys, void* values) const;

  // head_refresh.cpp
  /// Takes a prompt that was checked, a copy unless it is borrowed, and plans.
  void take_prompt(const AnyMatrix& keys, const AnyMatrix& values, MatrixView<float> queries,
                   const Execution& run);
  /// With the queries remembered, if they are enough.
  void refresh(const Execution& run);

  // head_aside.cpp
  /// Adopts, refreshes or begins to, as the tokens that are there ask for.
  void refresh_if_due();
  void begin_refresh();  ///< unless one is under way, or it would do nothing
  void adopt_refresh();  ///< waits for it; without one does nothing
  /// After tokens were taken back: without those that a refresh has seen, it is none.
  void forget_lost_refresh() noexcept;

  // head_truncate.cpp
  /// What is left of a head, made aside.
  struct Cut {
    std::size_t recent = 0;  ///< tokens of recent_keys that stay
    bool is_deep = false;    ///< others go as well: the rest is what stays of them
    AnyMatrix sink_keys, sink_values, indexed_keys, indexed_values;
    std::vector<std::size_t> pinned;
    std::vector<float> value_scales;
    HeadIndex index;
    Tail tail;
    HeadPlan plan;
  };
  [[nodiscard]] Cut cut_to(std::size_t tokens) const;
  void keep(Cut cut) noexcept;

  // head_turn.cpp
  /// Both throw Error where shapes do not match, or queries are not finite.
  void require_tokens(MatrixView<float> keys, MatrixView<float> values) const;
  void require_turn(MatrixView<float> queries, std::size_t tokens) const;
  void extend(MatrixView<float> queries, MatrixView<float> keys, MatrixView<float> values,
              DecodeScratch::State& scratch, float* out);
  void extend_over_written(MatrixView<float> queries, std::span<const Id> more,
                           DecodeScratch::State& scratch, float* out);

  // head_step.cpp
  void take_token(const float* key, const float* value) {
    take_tokens({key, 1, dim}, {value, 1, value_dim}, {});
  }
  void attend_all(MatrixView<float> queries, DecodeScratch::State& scratch, float* out);
  void forget_attention() noexcept;  ///< of the last attend_all
  void step_over_all(MatrixView<float> queries, const float* key, const float* value,
                     DecodeScratch::State& scratch, float* out);
  void step_over_written(MatrixView<float> queries, std::span<const Id> more,
                         DecodeScratch::State& scratch, float* out);
  void step_over_rest(MatrixView<float> queries, const float* key, const float* value,
                      DecodeScratch::State& scratch, float* out, float* lse);
  void undo_step() noexcept;  ///< the last one
  void retrieve(MatrixView<float> queries, std::size_t k, DecodeScratch::State& scratch,
                Hits& hits) const;
  [[nodiscard]] StaticPart static_part() const;

  // head_file.cpp
  /// `options` are to_text(params), looked at until the file is written.
  void write(IndexFileWriter& file, std::string_view options) const;
  [[nodiscard]] static HeadCache read(const ContainerReader& file);

 private:
  void require_own() const;  ///< throws Error where tokens are borrowed
  void make_room_for(std::size_t count, MatrixView<float> queries);
  void pin(AnyMatrixView keys, AnyMatrixView values, MatrixView<float> queries);
  void refresh_with(MatrixView<float> queries, std::span<const std::size_t> positions,
                    const Execution& run);
  [[nodiscard]] bool can_refresh() const noexcept;
  [[nodiscard]] AnyMatrix grown_values(const AnyMatrix& keys, AnyMatrixView moved,
                                       std::vector<float>& scales) const;
  [[nodiscard]] HeadIndex grown_index(AnyMatrixView moved_keys, MatrixView<float> queries,
                                      std::span<const std::size_t> positions,
                                      const Execution& run) const;
  void require_queries(MatrixView<float> queries) const;
  void plan_cut(Cut& cut) const;
  void keep_deep(Cut cut) noexcept;
  [[nodiscard]] bool searches_without_tail(std::size_t indexed) const;
  void attend_turn(MatrixView<float> queries, std::size_t past, DecodeScratch::State& scratch,
                   float* out) const;
  void make_room_to_remember(std::size_t positions);
  void remember(MatrixView<float> queries, std::size_t first, std::size_t count) noexcept;
  void attend_but(std::size_t first, std::size_t window, MatrixView<float> queries,
                  DecodeScratch::State& scratch) const;
  void attend_indexed(MatrixView<float> queries, DecodeScratch::State& scratch,
                      Partial& into) const;
  void retrieve_for(MatrixView<float> queries, DecodeScratch::State& scratch) const;
  void accept(MatrixView<float> queries, DecodeScratch::State& scratch) noexcept;
  void read_all(const ContainerReader& file);
  void read_tokens(const ContainerReader& file);
  void read_rest(const ContainerReader& file);
};

}  // namespace keyseek
