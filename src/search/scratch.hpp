/// What a SearchScratch holds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "keyseek/key_store.hpp"
#include "keyseek/router.hpp"
#include "keyseek/search.hpp"
#include "search/block_scan.hpp"
#include "select/id_set.hpp"
#include "select/pool.hpp"
#include "select/ranked.hpp"

namespace keyseek {

/// A set of keys, a byte each; cleared by naming its members, so that clearing costs what
/// filling did.
class KeySet {
 public:
  void resize(std::size_t n) {
    if (has_.size() < n) has_.resize(n);
  }
  /// Adds keys and writes those that were not there to `fresh` (room for all); returns
  /// how many. Without branches: whether a key is new cannot be predicted.
  std::size_t add(std::span<const Id> keys, Id* fresh) noexcept {
    std::uint8_t* has = has_.data();
    std::size_t count = 0;
    for (const Id key : keys) {
      fresh[count] = key;
      count += has[key] ^ 1U;
      has[key] = 1;
    }
    return count;
  }
  void clear(std::span<const Id> members) noexcept {
    for (const Id key : members) has_[key] = 0;
  }

 private:
  std::vector<std::uint8_t> has_;
};

/// Distinct keys and their scores in stored precision for the queries of a step.
struct ExactScores {
  std::vector<Id> ids;
  std::vector<float> scores;  ///< [ids, queries]
};

struct SearchScratch::State {
  MatrixView<float> asked;  ///< [G, d] the queries as codes are to see them, see in_range
  Matrix<float> moved;      ///< of them, what is not as it was given
  EncodedQueries encoded;
  const AllowedKeys* allowed = nullptr;  ///< of the step; null: all keys
  std::vector<Id> previous;  ///< keys to start from, with repetitions: the previous step's hits
  std::vector<Pool> pools;   ///< [G] best keys by approximate score
  ExactScores known;         ///< of what a search has scored exactly before its step ends
  std::vector<float> floor;  ///< [G] score that k of `known` reach, or nothing
  ExactScores fresh;         ///< of what it found beside these
  IdSet members;
  std::vector<Ranked> best;
  BlockScanScratch blocks;
  // Projection search only:
  KeySet visited;
  std::vector<Id> scanned;    ///< members of `visited`, in order, and room for more
  std::vector<float> scores;  ///< [G, batch]; of other searches, what queries are encoded in
  std::vector<std::uint32_t> selected;
  std::vector<Id> list;  ///< keys on their way into a set
  KeySet expanded;
  std::vector<Id> expansions;            ///< members of `expanded`, in order, and room for more
  std::vector<std::vector<Ranked>> top;  ///< [G] keys that may still be expanded, and room for more
  std::vector<std::size_t> top_count;    ///< [G] how many they are
  std::vector<float> top_threshold;      ///< [G] score of the last rank that is expanded
  std::vector<std::uint8_t> novel;       ///< [G] 1: answered by a scan
  RouteScratch route;
};

}  // namespace keyseek
