/// Links between keys, from the training queries' exact lists.
///
/// Two keys are linked when the same queries want both. A graph holds links only: no
/// vectors, no search state. It is built by small named steps, each a free function:
///
///     auto links = keyseek::project_cooccurrence(lists, store.size(), params);
///     keyseek::prune(links, store, params.degree);
///     keyseek::add_reverse(links, params.max_degree);
///     keyseek::attach(links, entry_points, store);
///     auto graph = keyseek::Graph::freeze(links, entry_points);
///
/// `build_graph` runs them in order. Every step is deterministic at any thread count.
/// A `Graph` is immutable and thread-safe; copies share the bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "keyseek/execution.hpp"
#include "keyseek/key_store.hpp"
#include "keyseek/matrix.hpp"

namespace keyseek {

/// How lists become links. RoarGraph calls it a projection of the bipartite graph onto the keys.
enum class LinkMethod : std::uint8_t {
  cooccurrence = 0,  ///< weight = shared queries, damped by popularity (this library's own)
  pivot = 1,         ///< each query's best key is linked to the rest (RoarGraph, arXiv 2408.08933)
};

struct GraphParams {
  LinkMethod link_method = LinkMethod::cooccurrence;
  std::size_t candidates = 64;      ///< heaviest links that pruning chooses from
  std::size_t degree = 32;          ///< links kept per key before reverse links
  std::size_t max_degree = 48;      ///< links per key after reverse links
  double damping = 0.35;            ///< exponent of the popularity a weight is divided by
  std::size_t sampled_lists = 400;  ///< lists counted per key at most
  std::size_t entry_points = 64;    ///< keys the reachability is counted from

  void validate() const;  ///< throws Error(invalid_argument)
};

/// What building found out.
struct GraphReport {
  std::size_t unwanted = 0;            ///< keys in no training list
  std::size_t unreachable_before = 0;  ///< keys not reachable before `attach`
  std::size_t unreachable = 0;         ///< after it: 0
  std::size_t links = 0;
};

/// Links under construction: a list per key.
using Links = std::vector<std::vector<Id>>;

class Graph {
 public:
  Graph() = default;
  [[nodiscard]] static Graph freeze(const Links& links, std::vector<Id> entry_points);

  [[nodiscard]] std::size_t size() const noexcept {
    return offsets_.empty() ? 0 : offsets_.size() - 1;
  }
  [[nodiscard]] std::size_t links() const noexcept { return targets_.size(); }
  [[nodiscard]] std::span<const Id> neighbors(Id key) const noexcept {
    return targets_.span().subspan(offsets_[key], offsets_[key + 1] - offsets_[key]);
  }
  /// Ask the memory system for what `neighbors` will read.
  void prefetch_place(Id key) const noexcept { __builtin_prefetch(offsets_.data() + key); }
  void prefetch_links(Id key) const noexcept {
    constexpr std::uint32_t kPerLine = 64 / sizeof(Id);
    for (std::uint32_t i = offsets_[key]; i < offsets_[key + 1]; i += kPerLine) {
      __builtin_prefetch(targets_.data() + i);
    }
  }
  [[nodiscard]] std::span<const Id> entry_points() const noexcept { return entry_points_.span(); }
  [[nodiscard]] std::size_t bytes() const noexcept {
    return offsets_.bytes() + targets_.bytes() + entry_points_.bytes();
  }
  [[nodiscard]] Links thaw() const;

  struct Parts {
    SharedArray<std::uint32_t> offsets;  ///< [n + 1]
    SharedArray<Id> targets;
    SharedArray<Id> entry_points;
  };
  [[nodiscard]] Parts parts() const { return {offsets_, targets_, entry_points_}; }
  /// Throws Error(corrupt) when an offset or a target is out of range.
  [[nodiscard]] static Graph from_parts(Parts parts);

 private:
  SharedArray<std::uint32_t> offsets_;
  SharedArray<Id> targets_;
  SharedArray<Id> entry_points_;
};

/// Lists of the training queries: `ids` [m, k], best first, padded with kNoId.
/// Throws Error when a list names a key that is not below n. Both keep the
/// `params.candidates` heaviest links of each key, heaviest first.
[[nodiscard]] Links project_cooccurrence(MatrixView<Id> lists, std::size_t n,
                                         const GraphParams& params, const Execution& run = {});
[[nodiscard]] Links project_pivots(MatrixView<Id> lists, std::size_t n, const GraphParams& params);

/// Keeps, of each key's links (heaviest first), those no kept link is closer to than the
/// key itself (L2 on the codes), then pads up to `degree` with the heaviest left over.
void prune(Links& links, const KeyStore& store, std::size_t degree, const Execution& run = {});
/// Adds b -> a for a -> b while b has fewer than `max_degree` links.
void add_reverse(Links& links, std::size_t max_degree);
/// Gives the keys from `first` on the links of `fresh`, and b -> a back for each such a -> b; a
/// key with `max_degree` links makes room by dropping its last one to a key below `first`.
void link_new(Links& links, const Links& fresh, std::size_t first, std::size_t max_degree);
/// Forgets the keys from `first` on and links to them. Of the entry points those that stay are
/// kept; where none does, the `most` keys with the most links to them are chosen.
void drop_keys(Links& links, std::vector<Id>& entry_points, std::size_t first, std::size_t most);
/// Links every key that cannot be reached from `entry_points` from a reached one near it.
/// Returns the number of keys that were unreachable.
std::size_t attach(Links& links, std::span<const Id> entry_points, const KeyStore& store,
                   const Execution& run = {});
/// Keys not reachable from `entry_points`.
[[nodiscard]] std::size_t count_unreachable(const Graph& graph);

struct BuiltGraph {
  Graph graph;
  GraphReport report;
};
[[nodiscard]] BuiltGraph build_graph(MatrixView<Id> lists, const KeyStore& store,
                                     const GraphParams& params = {}, const Execution& run = {});

}  // namespace keyseek
