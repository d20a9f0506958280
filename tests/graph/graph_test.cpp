#include "keyseek/graph.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "file/temporary_directory.hpp"
#include "keyseek/knn.hpp"
#include "support/ood_data.hpp"
#include "support/random_data.hpp"
#include "support/reference.hpp"

namespace keyseek {
namespace {

using test::any;
using test::elements;
using test::expect_error;

constexpr auto kInvalid = ErrorCode::invalid_argument;

Matrix<Id> lists_of(std::size_t rows, std::size_t cols, const std::vector<Id>& ids) {
  Matrix<Id> m(rows, cols);
  std::copy(ids.begin(), ids.end(), m.data());
  return m;
}

/// Three lists over five keys: 0 stands in two of them, 1 in three, 2 in two, 3 in one, 4 in none.
Matrix<Id> small_lists() { return lists_of(3, 3, {0, 1, 2, 0, 1, 3, 2, 1, kNoId}); }

TEST(Cooccurrence, WeightsAreSharedListsDampedByPopularity) {
  const Matrix<Id> lists = small_lists();
  EXPECT_EQ(project_cooccurrence(lists, 5, {.damping = 0}),
            (Links{{1, 2, 3}, {0, 2, 3}, {1, 0}, {0, 1}, {}}));
  // Divided by 2, 3, 2, 1: key 0 sees 3 at 1, 1 at 2/3, 2 at 1/2.
  EXPECT_EQ(project_cooccurrence(lists, 5, {.damping = 1}),
            (Links{{3, 1, 2}, {0, 2, 3}, {1, 0}, {0, 1}, {}}));
}

TEST(Cooccurrence, KeepsTheHeaviestAndSamplesLists) {
  const Matrix<Id> lists = small_lists();
  EXPECT_EQ(project_cooccurrence(lists, 5, {.candidates = 1, .degree = 1, .damping = 0}),
            (Links{{1}, {0}, {1}, {0}, {}}));
  // Of the three lists with key 1 only the first is counted.
  EXPECT_EQ(project_cooccurrence(lists, 5, {.damping = 0, .sampled_lists = 1}),
            (Links{{1, 2}, {0, 2}, {0, 1}, {0, 1}, {}}));
}

TEST(Pivots, EachBestKeyIsLinkedToTheRest) {
  EXPECT_EQ(project_pivots(small_lists(), 5, {}), (Links{{1, 2, 3}, {}, {1}, {}, {}}));
  EXPECT_EQ(project_pivots(lists_of(2, 4, {0, 1, 2, 3, 0, 4, 1, 2}), 5, {}),
            (Links{{1, 4, 2, 3}, {}, {}, {}, {}}));  // merged rank by rank
  EXPECT_EQ(project_pivots(small_lists(), 5, {.candidates = 2, .degree = 2}),
            (Links{{1, 2}, {}, {1}, {}, {}}));
}

TEST(Projections, ListsEndAtTheirPadding) {
  // What stands behind the padding is not read, whatever it is.
  const Matrix<Id> lists = lists_of(2, 4, {0, 1, kNoId, 4000000000U, kNoId, 2, 3, 4});
  const Links expected = {{1}, {0}, {}, {}, {}};
  EXPECT_EQ(project_cooccurrence(lists, 5, {}), expected);
  EXPECT_EQ(project_pivots(lists, 5, {}), (Links{{1}, {}, {}, {}, {}}));
}

TEST(Projections, RefuseKeysOutOfRange) {
  const Matrix<Id> lists = lists_of(2, 3, {0, 1, 2, 0, 5, 1});
  const KeyStore store = KeyStore::encode(any(test::normal_matrix(5, 2, 1)), {});
  const std::vector<std::string> parts = {"lists row 1", "key 5", "5 keys"};
  expect_error(kInvalid, parts, [&] { (void)project_cooccurrence(lists, 5, {}); });
  expect_error(kInvalid, parts, [&] { (void)project_pivots(lists, 5, {}); });
  expect_error(kInvalid, parts, [&] { (void)build_graph(lists, store); });
  Links links(5);
  expect_error(kInvalid, {"lists is empty"}, [&] { (void)build_graph({}, store); });
}

/// Keys in the plane whose codes' space is the plane itself, up to rounding.
KeyStore in_the_plane(const std::vector<float>& points) {
  Matrix<float> keys(points.size() / 2, 2), centred(points.size() / 2, 2);
  std::copy(points.begin(), points.end(), keys.data());
  for (std::size_t j = 0; j < 2; ++j) {
    float mean = 0;
    for (std::size_t i = 0; i < keys.rows(); ++i)
      mean += keys.row(i)[j] / static_cast<float>(keys.rows());
    for (std::size_t i = 0; i < keys.rows(); ++i) centred.row(i)[j] = keys.row(i)[j] - mean;
  }
  return KeyStore::encode(any(keys), centred);
}

TEST(Prune, KeepsWhatNoKeptLinkIsCloserTo) {
  // 2 stands beside 1 and 4 beside 3: 1 and 3 shadow them.
  const KeyStore store = in_the_plane({0, 0, 10, 0, 11, 1, 0, 10, 0.5, 11, -9, 0});
  const auto pruned = [&](std::size_t degree) {
    Links links(6);
    links[0] = {1, 2, 3, 4, 5};
    prune(links, store, degree);
    return links[0];
  };
  EXPECT_EQ(pruned(1), (std::vector<Id>{1}));
  EXPECT_EQ(pruned(2), (std::vector<Id>{1, 3}));
  EXPECT_EQ(pruned(3), (std::vector<Id>{1, 3, 5}));
  EXPECT_EQ(pruned(4), (std::vector<Id>{1, 2, 3, 5}));  // 2 is the heaviest left over
  EXPECT_EQ(pruned(5), (std::vector<Id>{1, 2, 3, 4, 5}));
  EXPECT_EQ(pruned(9), (std::vector<Id>{1, 2, 3, 4, 5}));
}

Links random_links(std::size_t n, std::size_t most, std::uint64_t seed) {
  Random random(seed);
  Links links(n);
  for (std::size_t a = 0; a < n; ++a) {
    for (std::size_t count = random.below(most + 1); links[a].size() < count;) {
      const auto b = static_cast<Id>(random.below(n));
      if (b != a && std::find(links[a].begin(), links[a].end(), b) == links[a].end())
        links[a].push_back(b);
    }
  }
  return links;
}

TEST(Prune, KeepsOrderAndDegreeAtAnyThreadCount) {
  const KeyStore store = KeyStore::encode(any(test::normal_matrix(900, 12, 2)), {});
  const Links before = random_links(900, 30, 3);
  Links one = before, many = before;
  prune(one, store, 12, {.threads = 1});
  prune(many, store, 12, {.threads = 5});
  EXPECT_EQ(one, many);
  for (std::size_t a = 0; a < 900; ++a) {
    ASSERT_EQ(one[a].size(), std::min<std::size_t>(12, before[a].size()));
    auto rest = before[a].begin();
    for (const Id b : one[a]) {
      rest = std::find(rest, before[a].end(), b);
      ASSERT_NE(rest, before[a].end());
    }
  }
}

TEST(Prune, RefusesWhatDoesNotFit) {
  const KeyStore store = KeyStore::encode(any(test::normal_matrix(5, 2, 1)), {});
  const KeyStore blocks =
      KeyStore::encode(any(test::normal_matrix(5, 2, 1)), {}, CodeLayout::blocks);
  Links links(4), five(5);
  expect_error(kInvalid, {"4 keys", "holds 5"}, [&] { prune(links, store, 2); });
  expect_error(kInvalid, {"degree is 0"}, [&] { prune(five, store, 0); });
  expect_error(kInvalid, {"blocks"}, [&] { prune(five, blocks, 2); });
}

TEST(AddReverse, FreePlacesGoToTheHighestRank) {
  Links links = {{1, 2}, {}, {1}, {1}};
  add_reverse(links, 2);
  EXPECT_EQ(links, (Links{{1, 2}, {0, 2}, {1, 0}, {1}}));
}

TEST(AddReverse, SymmetricUpToTheCap) {
  const Links before = random_links(300, 12, 4);
  Links links = before;
  add_reverse(links, 16);
  for (std::size_t a = 0; a < 300; ++a) {
    ASSERT_TRUE(std::equal(before[a].begin(), before[a].end(), links[a].begin()));
    ASSERT_LE(links[a].size(), 16U);
    ASSERT_EQ(std::set<Id>(links[a].begin(), links[a].end()).size(), links[a].size());
    for (const Id b : before[a]) {
      const bool back = std::find(links[b].begin(), links[b].end(), a) != links[b].end();
      ASSERT_TRUE(back || links[b].size() == 16U);
    }
  }
}

TEST(LinkNew, NewKeysAreLinkedBothWays) {
  Links links = {{1}, {0}, {0, 1}, {}, {}};
  link_new(links, {{}, {}, {}, {0, 4}, {1}}, 3, 8);
  EXPECT_EQ(links, (Links{{1, 3}, {0, 4}, {0, 1}, {0, 4}, {1, 3}}));
}

TEST(LinkNew, AFullKeyDropsAnOldLink) {
  Links links = {{1, 2}, {0, 2}, {0, 1}, {}, {}, {}};
  link_new(links, {{}, {}, {}, {0}, {0}, {0}}, 3, 2);
  EXPECT_EQ(links, (Links{{3, 4}, {0, 2}, {0, 1}, {0}, {0}, {0}}));  // 5 finds new links only
}

TEST(DropKeys, LinksAndEntryPointsLoseThem) {
  Links links = {{1, 3}, {0, 4}, {3, 1}, {0}, {1}};
  std::vector<Id> entry_points = {4, 1};
  drop_keys(links, entry_points, 3, 2);
  EXPECT_EQ(links, (Links{{1}, {0}, {1}}));
  EXPECT_EQ(entry_points, std::vector<Id>{1});
}

TEST(DropKeys, WithoutAnEntryPointTheMostLinkedKeysAreChosen) {
  Links links = {{1, 3}, {3, 0}, {3, 1}, {2}};
  std::vector<Id> entry_points = {3};
  drop_keys(links, entry_points, 3, 2);
  EXPECT_EQ(entry_points, (std::vector<Id>{1, 0}));
  EXPECT_THROW(drop_keys(links, entry_points, 0, 2), Error);
  EXPECT_THROW(drop_keys(links, entry_points, 4, 2), Error);
}

TEST(Attach, AnUnreachedKeyIsLinkedFromTheNearestReachedOne) {
  const KeyStore store = in_the_plane({0, 0, 100, 0, 0, 100, 90, 10, 5, 95, 5, 94});
  Links links = {{1}, {2}, {}, {0}, {5}, {}};  // 3 leads out, but nothing leads to 3; 4 leads to 5
  const std::vector<Id> entry = {0};
  EXPECT_EQ(count_unreachable(Graph::freeze(links, entry)), 3U);
  EXPECT_EQ(attach(links, entry, store), 3U);
  EXPECT_EQ(links, (Links{{1}, {2, 3}, {4}, {0}, {5}, {}}));
  EXPECT_EQ(count_unreachable(Graph::freeze(links, entry)), 0U);
  EXPECT_EQ(attach(links, entry, store), 0U);
  expect_error(kInvalid, {"entry_points is empty"}, [&] { (void)attach(links, {}, store); });
  const std::vector<Id> wrong = {0, 6};
  expect_error(kInvalid, {"entry_points hold 6", "6 keys"},
               [&] { (void)attach(links, wrong, store); });
}

TEST(Attach, ReachesEverythingFromNothing) {
  const KeyStore store = KeyStore::encode(any(test::normal_matrix(2000, 6, 7)), {});
  Links links(2000);
  const std::vector<Id> entry = {1234};
  EXPECT_EQ(attach(links, entry, store), 1999U);
  EXPECT_EQ(count_unreachable(Graph::freeze(links, entry)), 0U);
  for (std::size_t i = 0; i < 2000; ++i) EXPECT_FALSE(links[i].empty());
}

struct Problem {
  test::OodData data = test::make_ood_data({.n = 1500});
  KeyStore store = KeyStore::encode(any(data.keys), data.training.train);
  Matrix<Id> lists = exact_knn(any(data.keys), data.training.train, {.k = 50}).ids;
};

TEST(BuildGraph, EverythingIsReachable) {
  const Problem p;
  std::set<Id> wanted(p.lists.data(), p.lists.data() + p.lists.rows() * p.lists.cols());
  for (const LinkMethod method : {LinkMethod::cooccurrence, LinkMethod::pivot}) {
    const BuiltGraph built = build_graph(p.lists, p.store, {.link_method = method});
    EXPECT_EQ(built.graph.size(), 1500U);
    EXPECT_EQ(built.report.unwanted, 1500U - wanted.size());
    EXPECT_GT(built.report.unwanted, 0U);  // else the attachment is not tested
    EXPECT_GE(built.report.unreachable_before, built.report.unwanted);
    EXPECT_EQ(built.report.unreachable, 0U);
    EXPECT_EQ(count_unreachable(built.graph), 0U);
    EXPECT_EQ(built.report.links, built.graph.links());
    EXPECT_EQ(built.graph.entry_points().size(), 64U);
    for (const Id entry : built.graph.entry_points()) EXPECT_TRUE(wanted.contains(entry));
  }
}

TEST(BuildGraph, TheSameAtAnyThreadCount) {
  const Problem p;
  for (const LinkMethod method : {LinkMethod::cooccurrence, LinkMethod::pivot}) {
    const auto parts = [&](int threads) {
      const auto built =
          build_graph(p.lists, p.store, {.link_method = method}, {.threads = threads});
      const Graph::Parts all = built.graph.parts();
      return std::tuple(elements(all.offsets), elements(all.targets), elements(all.entry_points));
    };
    const auto one = parts(1);
    EXPECT_EQ(parts(2), one);
    EXPECT_EQ(parts(5), one);
  }
}

TEST(BuildGraph, IsCancelled) {
  const Problem p;
  for (const std::string wanted : {"projecting", "pruning"}) {
    const Execution run{.threads = 1,
                        .progress = [&](std::string_view stage, std::size_t, std::size_t) {
                          return stage != wanted;
                        }};
    expect_error(ErrorCode::cancelled, {wanted},
                 [&] { (void)build_graph(p.lists, p.store, {}, run); });
  }
}

TEST(GraphParams, NonsenseIsRefused) {
  const auto refused = [](GraphParams params, const std::string& name) {
    expect_error(kInvalid, {name}, [&] { params.validate(); });
  };
  refused({.degree = 0}, "degree is 0");
  refused({.degree = 1025}, "degree is 1025");
  refused({.degree = 20, .max_degree = 19}, "max_degree is 19");
  refused({.candidates = 31, .degree = 32}, "candidates is 31");
  refused({.damping = 1.5}, "damping is 1.5");
  refused({.sampled_lists = 0}, "sampled_lists is 0");
  refused({.entry_points = 0}, "entry_points is 0");
}

TEST(Graph, FreezeAndThaw) {
  const Links links = random_links(100, 9, 8);
  const Graph graph = Graph::freeze(links, {3, 1});
  EXPECT_EQ(graph.size(), 100U);
  EXPECT_EQ(graph.thaw(), links);
  EXPECT_EQ(std::vector<Id>(graph.entry_points().begin(), graph.entry_points().end()),
            (std::vector<Id>{3, 1}));
  for (std::size_t a = 0; a < 100; ++a) {
    const auto row = graph.neighbors(static_cast<Id>(a));
    ASSERT_EQ(std::vector<Id>(row.begin(), row.end()), links[a]);
  }
  EXPECT_EQ(graph.bytes(), sizeof(Id) * (101 + graph.links() + 2));
  EXPECT_EQ(Graph::from_parts(graph.parts()).thaw(), links);
  EXPECT_EQ(Graph().size(), 0U);
}

TEST(Graph, PartsMustAgree) {
  const auto array = [](std::vector<std::uint32_t> v) {
    return SharedArray<std::uint32_t>(AlignedVector<std::uint32_t>(v.begin(), v.end()));
  };
  const auto refused = [&](const std::vector<std::uint32_t>& offsets,
                           const std::vector<Id>& targets, const std::vector<Id>& entry,
                           const std::string& fault) {
    expect_error(ErrorCode::corrupt, {"graph", fault}, [&] {
      (void)Graph::from_parts({array(offsets), array(targets), array(entry)});
    });
  };
  EXPECT_EQ(Graph::from_parts({array({0, 1, 2}), array({1, 0}), array({0})}).size(), 2U);
  refused({}, {}, {}, "no offsets");
  refused({0, 1, 3}, {1, 0}, {0}, "span");
  refused({1, 1, 2}, {1, 0}, {0}, "span");
  refused({0, 3, 2}, {1, 0}, {0}, "fall");
  refused({0, 1, 2}, {1, 2}, {0}, "out of range");
  refused({0, 1, 2}, {1, kNoId}, {0}, "out of range");
  refused({0, 1, 2}, {1, 0}, {}, "no entry points");
  refused({0, 1, 2}, {1, 0}, {2}, "entry point");
}

}  // namespace
}  // namespace keyseek
