/// Joint search for the queries of a group.
///
/// The G query heads of a GQA group want overlapping keys, so they are searched
/// together: one visited set, and every key that is loaded is scored against all G.
/// Seeds come from the previous step's hits and the router or, where these give none, from
/// the graph's entry points; then the best keys' links are followed in rounds, on 8-bit
/// codes; then the best of each query are scored again in stored precision, and these exact
/// scores returned.
///
/// The caller owns scratch and hits. Searches are thread-safe with one scratch for each thread.
/// One that throws leaves the scratch as good as new, and hits as they were or with none found.
///
///     keyseek::SearchScratch scratch;
///     keyseek::Hits hits;
///     index.search(queries, {.k = 100}, scratch, hits);
///     index.search(next_queries, {.k = 100, .previous = &hits}, scratch, hits);
///     for (keyseek::Id id : hits.row_ids(0)) attend_to(id);
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "keyseek/allowed_keys.hpp"
#include "keyseek/matrix.hpp"

namespace keyseek {

struct SearchStats {
  std::size_t scanned = 0;     ///< keys whose code was scored (once for the whole group)
  std::size_t sketched = 0;    ///< keys whose sketch was scored, likewise
  std::size_t expanded = 0;    ///< keys whose links were followed
  std::size_t reranked = 0;    ///< keys scored in stored precision
  std::size_t bytes_read = 0;  ///< of codes, links, lists and stored keys

  /// Keys that were looked at, closely or not.
  [[nodiscard]] std::size_t looked_at() const { return std::max(scanned, sketched); }
};

/// Results of one step: for each of G queries up to k ids with exact inner products,
/// best first, equal scores by smaller id. Rows are padded with kNoId and -infinity.
struct Hits {
  std::size_t group = 0;
  std::size_t k = 0;
  std::vector<Id> ids;             ///< [G * k]
  std::vector<float> scores;       ///< [G * k]
  std::vector<std::size_t> count;  ///< [G] valid entries of each row
  SearchStats stats;

  [[nodiscard]] std::span<const Id> row_ids(std::size_t g) const {
    return std::span(ids).subspan(g * k, count[g]);
  }
  [[nodiscard]] std::span<const float> row_scores(std::size_t g) const {
    return std::span(scores).subspan(g * k, count[g]);
  }
};

/// How hard a projection index looks. Chosen by tuning; see Index::operating_points.
struct Dials {
  std::uint32_t probes = 8;   ///< router clusters looked into, per query
  std::uint32_t lists = 8;    ///< nearest training queries whose keys are scanned; 0: none
  std::uint32_t expand = 16;  ///< ranks of each query's pool whose links are followed; 0: none
  std::uint32_t pool = 0;     ///< keys per query reranked; 0: by k, d and expand
  /// A query less similar than this to every training query it was compared with is novel
  /// (cosine in the router's space). -1: none is.
  float novel = -1.0F;

  friend bool operator==(const Dials&, const Dials&) = default;
};

/// What only a search of a projection index can be told: the others look at every key.
struct ProjectionSearchParams {
  /// Recall wanted, in (0, 1]: chooses among the dials that tuning stored.
  double target_recall = 0.95;
  std::optional<Dials> dials = {};  ///< to use instead of the tuned ones
  /// Scan all keys for a query that is novel, by the dials: an index that learned where queries
  /// look knows nothing about one unlike them, as when a question is asked about a detail that
  /// the text never returned to. Tuning calls a hundredth of its held-out queries novel. Needs
  /// max_scanned to allow it.
  bool scan_novel = false;
  /// Upper bound on keys scanned in a step; the best found by then are returned.
  std::size_t max_scanned = SIZE_MAX;

  void validate() const;  ///< throws Error(invalid_argument)
};

/// What to return. With none of the optional rules: the k best keys that were found.
struct SearchParams {
  std::size_t k = 100;
  /// DIPR (AlayaDB): of the k best, only keys with q.k >= max - beta.
  std::optional<float> beta = {};
  /// For a projection index; an index of another kind refuses it.
  std::optional<ProjectionSearchParams> projection = {};
  /// Hits of the previous step of the same sequence, a warm start; may be `hits` itself.
  const Hits* previous = nullptr;
  /// The only keys that may be found; null: all may be. Where these are fewer than k, so are the
  /// hits. Keys that were appended since it was made are not among them.
  const AllowedKeys* allowed = nullptr;

  void validate() const;  ///< throws Error(invalid_argument)
};

/// Memory a search works in; reusable for any index, one per thread at a time.
class SearchScratch {
 public:
  SearchScratch();
  ~SearchScratch();
  SearchScratch(SearchScratch&&) noexcept;
  SearchScratch& operator=(SearchScratch&&) noexcept;

  struct State;
  [[nodiscard]] State& state() noexcept { return *state_; }

 private:
  std::unique_ptr<State> state_;
};

}  // namespace keyseek
