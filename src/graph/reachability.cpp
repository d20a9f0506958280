/// Finds the keys that no link leads to, and attaches them to others.
#include <algorithm>

#include "base/fail.hpp"
#include "graph/key_distance.hpp"
#include "graph/lists.hpp"
#include "keyseek/graph.hpp"

namespace keyseek {
namespace {

/// Marks what can be reached from `from` (and what that reaches), beyond what is marked.
template <class NeighborsOf>
void flood(Id from, const NeighborsOf& neighbors_of, std::vector<std::uint8_t>& reached,
           std::vector<Id>& stack) {
  if (reached[from] != 0) return;
  reached[from] = 1;
  stack.assign(1, from);
  while (!stack.empty()) {
    const Id key = stack.back();
    stack.pop_back();
    for (const Id next : neighbors_of(key)) {
      if (reached[next] != 0) continue;
      reached[next] = 1;
      stack.push_back(next);
    }
  }
}

template <class NeighborsOf>
std::vector<std::uint8_t> reachable(std::size_t n, std::span<const Id> from,
                                    const NeighborsOf& neighbors_of) {
  std::vector<std::uint8_t> reached(n);
  std::vector<Id> stack;
  for (const Id key : from) flood(key, neighbors_of, reached, stack);
  return reached;
}

/// Reached keys that an unreached one may be linked from.
class Hosts {
 public:
  Hosts(const Links& links, const std::vector<std::uint8_t>& reached, const KeyStore& store,
        const Execution& run)
      : distance_(store, run), guests_(links.size()) {
    std::vector<Id> all;
    for (std::size_t i = 0; i < reached.size(); ++i) {
      if (reached[i] != 0) all.push_back(static_cast<Id>(i));
    }
    const std::size_t count = std::min(kSpread, all.size());
    for (std::size_t i = 0; i < count; ++i) spread_.push_back(all[i * all.size() / count]);
  }

  /// The nearest of: a sample of the reached keys, and the reached ones beside it in the
  /// sequence. Each takes few guests.
  Id nearest(Id key, const std::vector<std::uint8_t>& reached) {
    candidates_ = spread_;
    const std::size_t first = key > kBeside ? key - kBeside : 0;
    const std::size_t last = std::min(reached.size(), std::size_t{key} + kBeside + 1);
    for (std::size_t i = first; i < last; ++i) {
      if (reached[i] != 0) candidates_.push_back(static_cast<Id>(i));
    }
    for (std::size_t most = kGuests;; most *= 2) {
      std::vector<Id> open;
      for (const Id c : candidates_) {
        if (guests_[c] < most) open.push_back(c);
      }
      if (open.empty()) continue;
      std::vector<float> distances(open.size());
      distance_.measure(key, open, distances.data());
      const auto best = std::min_element(distances.begin(), distances.end()) - distances.begin();
      const Id host = open[static_cast<std::size_t>(best)];
      ++guests_[host];
      return host;
    }
  }

 private:
  static constexpr std::size_t kSpread = 256, kBeside = 16, kGuests = 4;
  KeyDistance distance_;
  std::vector<std::uint32_t> guests_;
  std::vector<Id> spread_, candidates_;
};

}  // namespace

std::size_t attach(Links& links, std::span<const Id> entry_points, const KeyStore& store,
                   const Execution& run) {
  require(!entry_points.empty(), "entry_points is empty");
  for (const Id id : entry_points) {
    require(id < links.size(), "entry_points hold {}, but there are {} keys", id, links.size());
  }
  const auto neighbors_of = [&](Id key) -> const std::vector<Id>& { return links[key]; };
  std::vector<std::uint8_t> reached = reachable(links.size(), entry_points, neighbors_of);
  const auto missing = static_cast<std::size_t>(std::count(reached.begin(), reached.end(), 0));
  if (missing == 0) return 0;
  Hosts hosts(links, reached, store, run);
  std::vector<Id> stack;
  std::size_t done = 0;
  for (std::size_t i = 0; i < links.size(); ++i) {
    if (reached[i] != 0) continue;
    const auto key = static_cast<Id>(i);
    const Id host = hosts.nearest(key, reached);
    links[host].push_back(key);
    if (links[i].empty()) links[i].push_back(host);
    flood(key, neighbors_of, reached, stack);
    if (run.progress && ++done % 4096 == 0 && !run.progress("attaching", done, missing)) {
      fail(ErrorCode::cancelled, "cancelled during attaching at {} of {}", done, missing);
    }
  }
  return missing;
}

std::size_t count_unreachable(const Graph& graph) {
  const auto reached =
      reachable(graph.size(), graph.entry_points(), [&](Id key) { return graph.neighbors(key); });
  return static_cast<std::size_t>(std::count(reached.begin(), reached.end(), 0));
}

}  // namespace keyseek
