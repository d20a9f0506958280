/// Many queries, shared by threads.
#include <algorithm>
#include <vector>

#include "base/fail.hpp"
#include "base/parallel.hpp"
#include "index/index_state.hpp"
#include "score/kernels.hpp"

namespace keyseek {
namespace {

void add(const SearchStats& of_step, SearchStats& sum) {
  sum.scanned += of_step.scanned;
  sum.sketched += of_step.sketched;
  sum.expanded += of_step.expanded;
  sum.reranked += of_step.reranked;
  sum.bytes_read += of_step.bytes_read;
}

void require_groups(MatrixView<float> queries, std::size_t group, const SearchParams& params) {
  require(group >= 1 && group <= kMaxGroup, "group is {}, must be in [1, {}]", group, kMaxGroup);
  require(queries.rows > 0, "queries is empty");
  require(queries.rows % group == 0, "queries has {} rows, no multiple of group = {}", queries.rows,
          group);
  require(params.previous == nullptr,
          "params.previous is given, but the steps of a batch do not follow each other");
}

/// What a thread works in.
struct Worker {
  SearchScratch scratch;
  Hits hits;
  SearchStats stats;
};

}  // namespace

BatchHits Index::search_batch(MatrixView<float> queries, std::size_t group,
                              const SearchParams& params, const Execution& run) const {
  run.validate();
  require_groups(queries, group, params);
  const Index same = *this;  // of one state, whatever is appended meanwhile
  require(params.k >= 1 && params.k <= same.size(), "k is {}, must be in [1, {}] (keys)", params.k,
          same.size());
  BatchHits found{Matrix<Id>(queries.rows, params.k), Matrix<float>(queries.rows, params.k), {}};
  std::vector<Worker> workers(static_cast<std::size_t>(run.thread_count()));
  parallel_for(
      queries.rows / group, 1, run, "searching", [&](std::size_t step, std::size_t, int thread) {
        Worker& worker = workers[static_cast<std::size_t>(thread)];
        same.search(queries.slice(step * group, group), params, worker.scratch, worker.hits);
        std::copy(worker.hits.ids.begin(), worker.hits.ids.end(), found.ids.row(step * group));
        std::copy(worker.hits.scores.begin(), worker.hits.scores.end(),
                  found.scores.row(step * group));
        add(worker.hits.stats, worker.stats);
      });
  for (const Worker& worker : workers) add(worker.stats, found.stats);
  return found;
}

}  // namespace keyseek
