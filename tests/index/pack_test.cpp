#include "index/pack.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "keyseek/knn.hpp"
#include "support/ood_data.hpp"
#include "support/reference.hpp"

namespace keyseek {
namespace {

using test::any;
using test::elements;

/// Bytes from the first array to the end of the last one.
class Extent {
 public:
  void add(const void* data, std::size_t bytes) {
    const auto at = reinterpret_cast<std::uintptr_t>(data);
    EXPECT_EQ(at % 64, 0U);
    begin_ = std::min(begin_, at);
    end_ = std::max(end_, at + bytes);
    bytes_ += bytes;
    ++arrays_;
  }
  /// Nothing lies between the arrays but what rounds them to whole lines.
  void expect_one_piece() const { EXPECT_LT(end_ - begin_, bytes_ + 64 * arrays_); }

 private:
  std::uintptr_t begin_ = UINTPTR_MAX, end_ = 0;
  std::size_t bytes_ = 0, arrays_ = 0;
};

TEST(Pack, OnePieceWithTheSameContent) {
  const test::OodData data = test::make_ood_data({.n = 333, .d = 19, .train_steps = 50});
  const auto lists = exact_knn(any(data.keys), data.training.train, {.k = 20}).ids;
  KeyStore store = KeyStore::encode(any(data.keys), data.training.train);
  Graph graph = build_graph(lists, store).graph;
  Router router = Router::build(data.training.train, lists, any(data.keys));
  const KeyStore::Parts s = store.parts();
  const Graph::Parts g = graph.parts();
  const Router::Parts r = router.parts();
  pack(store, graph, router);

  Extent extent;
  const auto same = [&](const auto& before, const auto& after) {
    EXPECT_NE(before.data(), after.data());
    EXPECT_EQ(elements(before), elements(after));
    extent.add(after.data(), after.bytes());
  };
  EXPECT_EQ(s.keys.view().data, store.parts().keys.view().data);  // others may share them
  same(s.codes, store.parts().codes);
  same(s.scales, store.parts().scales);
  same(s.mean, store.parts().mean);
  same(s.channel, store.parts().channel);
  same(g.offsets, graph.parts().offsets);
  same(g.targets, graph.parts().targets);
  same(g.entry_points, graph.parts().entry_points);
  same(r.query_map.shared_bytes(), router.parts().query_map.shared_bytes());
  same(r.centroids, router.parts().centroids);
  same(r.centroid_scales, router.parts().centroid_scales);
  same(r.cluster_offsets, router.parts().cluster_offsets);
  same(r.codes, router.parts().codes);
  same(r.scales, router.parts().scales);
  same(r.list_offsets, router.parts().list_offsets);
  same(r.gaps, router.parts().gaps);
  extent.expect_one_piece();
}

TEST(Pack, AStoreAlone) {
  KeyStore store = KeyStore::encode(any(test::normal_matrix(33, 7, 1)), {}, CodeLayout::blocks);
  const KeyStore::Parts before = store.parts();
  pack(store);
  EXPECT_EQ(store.layout(), CodeLayout::blocks);
  EXPECT_EQ(elements(before.codes), elements(store.parts().codes));
  EXPECT_EQ(elements(before.scales), elements(store.parts().scales));
}

}  // namespace
}  // namespace keyseek
