/// Links the best key of each training query to the rest of its list, as RoarGraph does.
#include <algorithm>

#include "graph/lists.hpp"
#include "keyseek/graph.hpp"

namespace keyseek {

Links project_pivots(MatrixView<Id> lists, std::size_t n, const GraphParams& params) {
  params.validate();
  require_lists(lists, n);
  Links links(n);
  std::vector<std::vector<std::uint32_t>> queries_of(n);
  for (std::size_t q = 0; q < lists.rows; ++q) {
    const auto list = list_of(lists, q);
    if (!list.empty()) queries_of[list[0]].push_back(static_cast<std::uint32_t>(q));
  }
  // Lists of one pivot are merged rank by rank: RoarGraph's own code keeps the last list
  // only, which makes the graph depend on the order of the queries.
  std::vector<std::uint32_t> taken_by(n, kNoId);
  for (std::size_t pivot = 0; pivot < n; ++pivot) {
    for (std::size_t rank = 1; rank < lists.cols; ++rank) {
      for (const std::uint32_t q : queries_of[pivot]) {
        const auto list = list_of(lists, q);
        if (rank >= list.size()) continue;
        const Id other = list[rank];
        if (other == pivot || taken_by[other] == pivot) continue;
        if (links[pivot].size() >= params.candidates) break;
        taken_by[other] = static_cast<std::uint32_t>(pivot);
        links[pivot].push_back(other);
      }
    }
  }
  return links;
}

}  // namespace keyseek
