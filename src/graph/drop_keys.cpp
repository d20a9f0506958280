/// Takes the newest keys out of a graph under construction.
#include <algorithm>
#include <cstdint>

#include "base/fail.hpp"
#include "graph/most_wanted.hpp"
#include "keyseek/graph.hpp"

namespace keyseek {

void drop_keys(Links& links, std::vector<Id>& entry_points, std::size_t first, std::size_t most) {
  require(first >= 1 && first <= links.size(), "first is {}, must be in [1, {}]", first,
          links.size());
  const auto is_gone = [&](Id id) { return id >= first; };
  links.resize(first);
  for (std::vector<Id>& row : links) std::erase_if(row, is_gone);
  std::erase_if(entry_points, is_gone);
  if (!entry_points.empty()) return;
  std::vector<std::uint32_t> wanted(first);
  for (const std::vector<Id>& row : links)
    for (const Id id : row) ++wanted[id];
  entry_points = most_wanted(wanted, most);
}

}  // namespace keyseek
