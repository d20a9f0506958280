/// Prunes the links of a node, fills up what is left of its room, and adds reverse links.
#include <algorithm>

#include "base/fail.hpp"
#include "base/parallel.hpp"
#include "graph/key_distance.hpp"
#include "keyseek/graph.hpp"

namespace keyseek {
namespace {

struct PruneScratch {
  std::vector<float> to_key, to_kept;
  std::vector<Id> kept;
  std::vector<std::uint8_t> state;  ///< of each candidate
};

enum : std::uint8_t { kOpen, kKept, kShadowed };

/// The rule of relative neighbourhood graphs, heaviest candidate first, then padding.
void prune_one(Id key, std::vector<Id>& candidates, const KeyDistance& distance, std::size_t degree,
               PruneScratch& scratch) {
  const std::size_t n = candidates.size();
  if (n <= degree) return;
  scratch.to_key.resize(n);
  scratch.to_kept.resize(n);
  scratch.state.assign(n, kOpen);
  distance.measure(key, candidates, scratch.to_key.data());
  std::size_t kept = 0;
  for (std::size_t i = 0; i < n && kept < degree; ++i) {
    if (scratch.state[i] != kOpen) continue;
    scratch.state[i] = kKept;
    ++kept;
    const std::span<const Id> rest = std::span<const Id>(candidates).subspan(i + 1);
    distance.measure(candidates[i], rest, scratch.to_kept.data());
    for (std::size_t j = 0; j < rest.size(); ++j) {
      const std::size_t at = i + 1 + j;
      if (scratch.to_kept[j] < scratch.to_key[at] && scratch.state[at] == kOpen) {
        scratch.state[at] = kShadowed;
      }
    }
  }
  for (std::size_t i = 0; i < n && kept < degree; ++i) {
    if (scratch.state[i] == kKept) continue;
    scratch.state[i] = kKept;
    ++kept;
  }
  scratch.kept.clear();
  for (std::size_t i = 0; i < n; ++i) {
    if (scratch.state[i] == kKept) scratch.kept.push_back(candidates[i]);
  }
  candidates.assign(scratch.kept.begin(), scratch.kept.end());
}

}  // namespace

void prune(Links& links, const KeyStore& store, std::size_t degree, const Execution& run) {
  require(links.size() == store.size(), "links are of {} keys, the store holds {}", links.size(),
          store.size());
  require(degree >= 1, "degree is 0");
  const KeyDistance distance(store, run);
  std::vector<PruneScratch> scratch(static_cast<std::size_t>(run.thread_count()));
  parallel_for(links.size(), 256, run, "pruning",
               [&](std::size_t begin, std::size_t end, int worker) {
                 for (std::size_t i = begin; i < end; ++i) {
                   prune_one(static_cast<Id>(i), links[i], distance, degree,
                             scratch[static_cast<std::size_t>(worker)]);
                 }
               });
}

void add_reverse(Links& links, std::size_t max_degree) {
  std::vector<std::size_t> forward(links.size());
  for (std::size_t a = 0; a < links.size(); ++a) forward[a] = links[a].size();
  // By rank, so that a key's few free places go to those that hold it highest.
  for (std::size_t rank = 0, more = 1; more != 0; ++rank) {
    more = 0;
    for (std::size_t a = 0; a < links.size(); ++a) {
      if (rank >= forward[a]) continue;
      more = 1;
      std::vector<Id>& back = links[links[a][rank]];
      if (back.size() >= max_degree) continue;
      if (std::find(back.begin(), back.end(), static_cast<Id>(a)) == back.end()) {
        back.push_back(static_cast<Id>(a));
      }
    }
  }
}

void link_new(Links& links, const Links& fresh, std::size_t first, std::size_t max_degree) {
  for (std::size_t a = first; a < links.size(); ++a) links[a] = fresh[a];
  for (std::size_t a = first; a < links.size(); ++a) {
    for (const Id b : fresh[a]) {
      std::vector<Id>& back = links[b];
      if (std::find(back.begin(), back.end(), static_cast<Id>(a)) != back.end()) continue;
      if (back.size() >= max_degree) {
        const auto old =
            std::find_if(back.rbegin(), back.rend(), [&](Id id) { return id < first; });
        if (old == back.rend()) continue;
        back.erase(std::next(old).base());
      }
      back.push_back(static_cast<Id>(a));
    }
  }
}

}  // namespace keyseek
