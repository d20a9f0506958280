/// Links two keys by how many training queries want both of them.
#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "base/fail.hpp"
#include "base/parallel.hpp"
#include "graph/lists.hpp"
#include "keyseek/graph.hpp"
#include "select/ranked.hpp"
#include "select/rerank.hpp"

namespace keyseek {
namespace {

/// Which lists hold a key: the transpose of the lists.
struct Wanted {
  std::vector<std::uint32_t> offsets;  ///< [n + 1]
  std::vector<std::uint32_t> lists;

  [[nodiscard]] std::size_t count(std::size_t key) const { return offsets[key + 1] - offsets[key]; }
};

Wanted transpose(MatrixView<Id> lists, std::size_t n) {
  Wanted wanted;
  wanted.offsets.assign(n + 1, 0);
  for (std::size_t q = 0; q < lists.rows; ++q) {
    for (const Id id : list_of(lists, q)) ++wanted.offsets[id + 1];
  }
  std::partial_sum(wanted.offsets.begin(), wanted.offsets.end(), wanted.offsets.begin());
  wanted.lists.resize(wanted.offsets.back());
  std::vector<std::uint32_t> next(wanted.offsets.begin(), wanted.offsets.end() - 1);
  for (std::size_t q = 0; q < lists.rows; ++q) {
    for (const Id id : list_of(lists, q)) wanted.lists[next[id]++] = static_cast<std::uint32_t>(q);
  }
  return wanted;
}

/// Counts the keys that stand beside one key; reused from key to key.
struct Counter {
  std::vector<std::uint32_t> counts;
  std::vector<Id> seen;
  std::vector<Ranked> weighed;
};

void count_beside(Id key, const Wanted& wanted, MatrixView<Id> lists, std::size_t most,
                  Counter& counter) {
  const std::size_t all = wanted.count(key);
  const std::size_t used = std::min(all, most);
  for (std::size_t s = 0; s < used; ++s) {
    // Evenly over the lists, which stand in order of position.
    const std::size_t list = wanted.lists[wanted.offsets[key] + s * all / used];
    for (const Id other : list_of(lists, list)) {
      if (counter.counts[other]++ == 0) counter.seen.push_back(other);
    }
  }
}

}  // namespace

Links project_cooccurrence(MatrixView<Id> lists, std::size_t n, const GraphParams& params,
                           const Execution& run) {
  params.validate();
  require_lists(lists, n);
  const Wanted wanted = transpose(lists, n);
  std::vector<float> damping(n);
  for (std::size_t i = 0; i < n; ++i) {
    damping[i] =
        static_cast<float>(std::pow(std::max<std::size_t>(1, wanted.count(i)), -params.damping));
  }
  Links links(n);
  std::vector<Counter> counters(static_cast<std::size_t>(run.thread_count()));
  parallel_for(n, 256, run, "projecting", [&](std::size_t begin, std::size_t end, int worker) {
    Counter& counter = counters[static_cast<std::size_t>(worker)];
    counter.counts.resize(n);
    for (std::size_t i = begin; i < end; ++i) {
      const auto key = static_cast<Id>(i);
      count_beside(key, wanted, lists, params.sampled_lists, counter);
      counter.weighed.clear();
      for (const Id other : counter.seen) {
        if (other != key) {
          counter.weighed.push_back(
              ranked(static_cast<float>(counter.counts[other]) * damping[other], other));
        }
        counter.counts[other] = 0;
      }
      counter.seen.clear();
      keep_best(counter.weighed, params.candidates);
      links[i].reserve(params.max_degree);
      for (const Ranked r : counter.weighed) links[i].push_back(id_of(r));
    }
  });
  return links;
}

}  // namespace keyseek
