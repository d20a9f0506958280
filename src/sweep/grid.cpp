// Chooses the dials that a sweep tries, out of combinations of lists and expansions.
#include "sweep/grid.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <utility>

namespace keyseek::sweep {
namespace {

constexpr std::array<std::uint32_t, 10> kLists = {0, 1, 2, 4, 8, 16, 32, 64, 128, 256};
constexpr std::array<std::uint32_t, 8> kExpand = {0, 8, 16, 32, 64, 128, 256, 512};
/// Lists and expansions cost alike where their places in the two tables differ by so much.
constexpr int kRidge = 2;

/// Clusters that hold so many near queries: as the tuner pairs them.
std::uint32_t probes_for(std::uint32_t lists) {
  return lists <= 1 ? 1 : lists <= 8 ? 4 : lists <= 32 ? 8 : 16;
}

struct Cell {
  int lists, expand;  ///< indices
  [[nodiscard]] int off_ridge() const { return std::abs(lists - expand - kRidge); }
};

/// All cells but the one that does nothing.
std::vector<Cell> all_cells() {
  std::vector<Cell> cells;
  for (int lists = 0; lists < static_cast<int>(kLists.size()); ++lists) {
    for (int expand = 0; expand < static_cast<int>(kExpand.size()); ++expand) {
      if (lists + expand > 0) cells.push_back({lists, expand});
    }
  }
  return cells;
}

/// The `count` cells nearest to the ridge; of the last band that is not taken whole, every
/// second, third, ... cell.
std::vector<Cell> thin(std::vector<Cell> cells, std::size_t count) {
  std::vector<Cell> kept;
  for (int band = 0; kept.size() < count && !cells.empty(); ++band) {
    const auto rest = std::stable_partition(
        cells.begin(), cells.end(), [&](const Cell& cell) { return cell.off_ridge() == band; });
    const auto size = static_cast<std::size_t>(rest - cells.begin());
    const std::size_t wanted = std::min(size, count - kept.size());
    for (std::size_t i = 0; i < wanted; ++i) kept.push_back(cells[i * size / wanted]);
    cells.erase(cells.begin(), rest);
  }
  return kept;
}

/// The points of the cells, ordered by rising effort.
std::vector<Point> points_of(std::vector<Cell> cells) {
  std::stable_sort(cells.begin(), cells.end(), [](const Cell& a, const Cell& b) {
    return a.lists + a.expand < b.lists + b.expand;
  });
  std::vector<Point> points;
  for (const Cell& cell : cells) {
    const std::uint32_t lists = kLists[static_cast<std::size_t>(cell.lists)];
    const std::uint32_t expand = kExpand[static_cast<std::size_t>(cell.expand)];
    points.push_back({Dials{.probes = probes_for(lists), .lists = lists, .expand = expand}});
  }
  return points;
}

}  // namespace

std::vector<Point> grid(std::size_t points) {
  std::vector<Cell> cells = all_cells();
  if (points > 0) cells = thin(std::move(cells), points);
  return points_of(std::move(cells));
}

std::vector<Point> grid_near_ridge(std::size_t spread) {
  std::vector<Cell> cells = all_cells();
  std::erase_if(cells, [&](const Cell& cell) {
    return cell.lists < kRidge || static_cast<std::size_t>(cell.off_ridge()) > spread;
  });
  return points_of(std::move(cells));
}

std::vector<Point> with_tuned(std::vector<Point> grid, const std::vector<OperatingPoint>& tuned) {
  std::vector<Point> outside;
  for (const OperatingPoint& point : tuned) {
    const auto same = [&](const Point& p) { return p.dials == point.dials; };
    auto found = std::find_if(grid.begin(), grid.end(), same);
    if (found == grid.end()) {
      found = std::find_if(outside.begin(), outside.end(), same);
      if (found == outside.end()) {
        found = outside.insert(found, {.dials = point.dials});
      }
    }
    found->tuned_for.push_back(point.target_recall);
  }
  outside.insert(outside.end(), grid.begin(), grid.end());
  return outside;
}

}  // namespace keyseek::sweep
