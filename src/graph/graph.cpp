/// Builds a graph step by step, extends it, and keeps its links in arrays.
#include "keyseek/graph.hpp"

#include <algorithm>

#include "base/fail.hpp"
#include "base/saved_count.hpp"
#include "graph/lists.hpp"
#include "graph/most_wanted.hpp"

namespace keyseek {
namespace {

/// How many lists hold each key.
std::vector<std::uint32_t> popularity(MatrixView<Id> lists, std::size_t n) {
  std::vector<std::uint32_t> count(n);
  for (std::size_t q = 0; q < lists.rows; ++q) {
    for (const Id id : list_of(lists, q)) ++count[id];
  }
  return count;
}

void check(bool ok, const char* what) {
  if (!ok) fail(ErrorCode::corrupt, "graph: {}", what);
}

}  // namespace

void GraphParams::validate() const {
  require(degree >= 1 && degree <= 1024, "degree is {}, must be in [1, 1024]", degree);
  require(max_degree >= degree && max_degree <= 4096,
          "max_degree is {}, must be in [degree = {}, 4096]", max_degree, degree);
  require(candidates >= degree && candidates <= 65536,
          "candidates is {}, must be in [degree = {}, 65536]", candidates, degree);
  require(damping >= 0.0 && damping <= 1.0, "damping is {}, must be in [0, 1]", damping);
  require(link_method <= LinkMethod::pivot, "link_method is {}, which is none",
          static_cast<int>(link_method));
  require(sampled_lists >= 1, "sampled_lists is 0");
  require_saveable("sampled_lists", sampled_lists);
  require(entry_points >= 1, "entry_points is 0");
  require_saveable("entry_points", entry_points);
}

Graph Graph::freeze(const Links& links, std::vector<Id> entry_points) {
  AlignedVector<std::uint32_t> offsets(links.size() + 1);
  std::size_t total = 0;
  for (std::size_t i = 0; i < links.size(); ++i) {
    total += links[i].size();
    require(total < kNoId, "the graph has more than {} links", kNoId - 1);
    offsets[i + 1] = static_cast<std::uint32_t>(total);
  }
  AlignedVector<Id> targets;
  targets.reserve(total);
  for (const auto& row : links) targets.insert(targets.end(), row.begin(), row.end());
  Graph graph;
  graph.offsets_ = SharedArray(std::move(offsets));
  graph.targets_ = SharedArray(std::move(targets));
  graph.entry_points_ = SharedArray(AlignedVector<Id>(entry_points.begin(), entry_points.end()));
  return graph;
}

Links Graph::thaw() const {
  Links links(size());
  for (std::size_t i = 0; i < size(); ++i) {
    const auto row = neighbors(static_cast<Id>(i));
    links[i].assign(row.begin(), row.end());
  }
  return links;
}

Graph Graph::from_parts(Parts parts) {
  check(!parts.offsets.empty(), "no offsets");
  const std::size_t n = parts.offsets.size() - 1;
  check(parts.offsets[0] == 0 && parts.offsets[n] == parts.targets.size(),
        "offsets do not span the links");
  for (std::size_t i = 0; i < n; ++i)
    check(parts.offsets[i] <= parts.offsets[i + 1], "offsets fall");
  for (const Id id : parts.targets) check(id < n, "a link leads out of range");
  check(n == 0 || !parts.entry_points.empty(), "no entry points");
  for (const Id id : parts.entry_points) check(id < n, "an entry point is out of range");
  Graph graph;
  graph.offsets_ = std::move(parts.offsets);
  graph.targets_ = std::move(parts.targets);
  graph.entry_points_ = std::move(parts.entry_points);
  return graph;
}

BuiltGraph build_graph(MatrixView<Id> lists, const KeyStore& store, const GraphParams& params,
                       const Execution& run) {
  params.validate();
  const std::size_t n = store.size();
  require(lists.rows > 0, "lists is empty");
  require_lists(lists, n);
  Links links = params.link_method == LinkMethod::cooccurrence
                    ? project_cooccurrence(lists, n, params, run)
                    : project_pivots(lists, n, params);
  prune(links, store, params.degree, run);
  add_reverse(links, params.max_degree);

  BuiltGraph built;
  const auto wanted = popularity(lists, n);
  built.report.unwanted = static_cast<std::size_t>(std::count(wanted.begin(), wanted.end(), 0U));
  std::vector<Id> entry_points = most_wanted(wanted, params.entry_points);
  built.report.unreachable_before = attach(links, entry_points, store, run);
  built.graph = Graph::freeze(links, std::move(entry_points));
  built.report.unreachable = count_unreachable(built.graph);
  built.report.links = built.graph.links();
  return built;
}

}  // namespace keyseek
