// The dials that a sweep tries.
#include "sweep/grid.hpp"

#include <gtest/gtest.h>

namespace keyseek::sweep {
namespace {

TEST(SweepGrid, GoesFromLittleToMuch) {
  const auto all = grid(0);
  EXPECT_EQ(all.size(), 79U);  // 10 x 8 but the one that does nothing
  EXPECT_EQ(all.back().dials, (Dials{.probes = 16, .lists = 256, .expand = 512}));
  EXPECT_EQ(grid(12).size(), 12U);
  EXPECT_EQ(grid(500).size(), all.size());
}

TEST(SweepGrid, FollowsTheRidge) {
  EXPECT_EQ(grid_near_ridge(0).size(), 8U);
  EXPECT_EQ(grid_near_ridge(1).size(), 22U);
  EXPECT_EQ(grid_near_ridge(0)[3].dials, (Dials{.probes = 8, .lists = 16, .expand = 32}));
}

TEST(SweepGrid, TunedDialsAreMarkedOrComeFirst) {
  const auto on_grid = grid_near_ridge(0);
  const Dials other{.probes = 5, .lists = 7, .expand = 9};
  const auto points = with_tuned(on_grid, {{.target_recall = 0.8, .dials = other},
                                           {.target_recall = 0.9, .dials = other},
                                           {.target_recall = 0.95, .dials = *on_grid[2].dials}});
  ASSERT_EQ(points.size(), 9U);
  EXPECT_EQ(points[0].dials, other);
  EXPECT_EQ(points[0].tuned_for, (std::vector<double>{0.8, 0.9}));
  EXPECT_EQ(points[3].tuned_for, (std::vector<double>{0.95}));
  EXPECT_TRUE(points[1].tuned_for.empty());
}

}  // namespace
}  // namespace keyseek::sweep
