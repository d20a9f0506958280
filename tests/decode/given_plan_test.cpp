// Plans that the caller gives, stop rules, pinned tokens, 8-bit values, a search of one's own.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "file/temporary_directory.hpp"
#include "keyseek/score.hpp"
#include "support/decode_head.hpp"

namespace keyseek {
namespace {

using test::elements;
using test::expect_error;
using test::given_plan;
using test::sample_of_layer_2;

constexpr std::size_t kPrompt = 3000;

DecodeParams params_with(const auto& change) {
  return test::with(sample_of_layer_2().params, change);
}

/// Exact search by a loop, as somebody else's library would do it.
SearchKeys exact_search(const AnyMatrix& keys) {
  return [keys](MatrixView<float> queries, std::size_t k, Hits& hits) {
    hits.group = queries.rows;
    hits.k = k;
    hits.ids.assign(queries.rows * k, kNoId);
    hits.scores.assign(queries.rows * k, 0);
    hits.count.assign(queries.rows, k);
    std::vector<Id> order(keys.rows());
    std::vector<float> scores(keys.rows());
    for (std::size_t g = 0; g < queries.rows; ++g) {
      std::iota(order.begin(), order.end(), Id{0});
      for (Id i = 0; i < keys.rows(); ++i)
        scores[i] = inner_product(keys.view(), i, queries.row(g));
      std::stable_sort(order.begin(), order.end(),
                       [&](Id a, Id b) { return scores[a] > scores[b]; });
      for (std::size_t r = 0; r < k; ++r) {
        hits.ids[g * k + r] = order[r];
        hits.scores[g * k + r] = scores[order[r]];
      }
    }
  };
}

TEST(GivenPlan, IsTakenAsItIs) {
  for (const Retriever retriever : {Retriever::flat, Retriever::sketch, Retriever::projection}) {
    HeadCache cache = sample_of_layer_2().prefill(kPrompt, given_plan(retriever, {.k = 60}));
    const HeadPlan& plan = cache.plan();
    EXPECT_EQ(plan.retriever, retriever);
    EXPECT_EQ(plan.stop.k, 60U);
    EXPECT_EQ(plan.tail_vectors, 64U);
    EXPECT_EQ(plan.keys_per_query, 124.0);
    EXPECT_GT(plan.expected_error, 0.0);
    EXPECT_LT(plan.expected_error, plan.error_without_tail);
    DecodeScratch scratch;
    (void)sample_of_layer_2().step(cache, scratch);
    EXPECT_EQ(cache.stats().retrieved, 180U);
    EXPECT_EQ(cache.stats().scanned == cache.indexed(), retriever != Retriever::projection);
  }
  HeadCache none = sample_of_layer_2().prefill(kPrompt, given_plan(Retriever::none, {}));
  EXPECT_EQ(none.plan().retriever, Retriever::none);
  EXPECT_EQ(none.plan().keys_per_query, 64.0);
  HeadCache all = sample_of_layer_2().prefill(kPrompt, given_plan(Retriever::everything, {}));
  EXPECT_EQ(all.plan().retriever, Retriever::everything);
  EXPECT_LT(sample_of_layer_2().decode(all, 5), 1e-5);
}

TEST(GivenPlan, CompleteIsASketchWhereItReadsMarkedlyLess) {
  struct Searched {
    HeadPlan plan;
    double read;  ///< bytes of a step, but for those of the tail
  };
  const auto searched = [](std::size_t prompt, std::optional<Retriever> retriever) {
    const HeadCache head = sample_of_layer_2().prefill(prompt, given_plan(retriever, {.k = 16}));
    const HeadPlan plan = head.plan();
    return Searched{plan, plan.bytes_per_step - static_cast<double>(head.tail().bytes())};
  };
  std::set<Retriever> chosen;
  for (const std::size_t prompt : {std::size_t{1700}, std::size_t{2500}, kPrompt}) {
    const Searched flat = searched(prompt, Retriever::flat),
                   sketch = searched(prompt, Retriever::sketch);
    const HeadPlan complete = searched(prompt, test::kComplete).plan;
    // Fewer keys than that have no sketch.
    const bool worth = prompt - 640 >= 1500 && sketch.read < 0.7 * flat.read;
    EXPECT_EQ(complete.retriever, worth ? Retriever::sketch : Retriever::flat);
    EXPECT_EQ(complete.bytes_per_step, (worth ? sketch : flat).plan.bytes_per_step);
    EXPECT_NEAR(sketch.plan.expected_error, flat.plan.expected_error,
                0.05 * flat.plan.expected_error);
    chosen.insert(complete.retriever);
  }
  EXPECT_EQ(chosen, (std::set{Retriever::flat, Retriever::sketch}));
}

TEST(GivenPlan, MoreKeysThanThereAreMeansAllOfThem) {
  HeadCache cache = sample_of_layer_2().prefill(2000, given_plan(Retriever::flat, {.k = 100000}));
  EXPECT_EQ(cache.plan().stop.k, 2000U - 640);
  EXPECT_LT(sample_of_layer_2().decode(cache, 5), 1e-3);
}

TEST(GivenPlan, ASearchOfOnesOwnTakesTheIndexsPlace) {
  const auto custom = [](const auto& change) {
    DecodeParams p = given_plan(Retriever::custom, {.k = 40});
    p.horizon = 64;
    change(p);
    return p;
  };
  std::size_t built = 0;
  const auto count_builds = [&](DecodeParams& p) {
    p.index = [&](const AnyMatrix& keys) {
      ++built;
      return exact_search(keys);
    };
  };
  HeadCache cache = sample_of_layer_2().prefill(kPrompt, custom(count_builds));
  EXPECT_EQ(built, 1U);
  DecodeParams flat = given_plan(Retriever::flat, {.k = 40});
  flat.horizon = 64;
  HeadCache ours = sample_of_layer_2().prefill(kPrompt, flat);
  DecodeScratch scratch;
  for (std::size_t s = 0; s < 70; ++s) {  // past a refresh
    const Matrix<float> a = sample_of_layer_2().step(cache, scratch),
                        b = sample_of_layer_2().step(ours, scratch);
    for (std::size_t g = 0; g < 3; ++g)
      EXPECT_LT(test::relative_error(a.row(g), b.row(g), 64), 1e-4) << "step " << s;
  }
  EXPECT_EQ(built, 2U);
  EXPECT_EQ(cache.indexed(), kPrompt - 640 + 64);
  EXPECT_EQ(cache.stats().retrieved, 120U);
  Hits hits;
  cache.retrieve(sample_of_layer_2().at(cache.tokens()), 10, scratch, hits);
  EXPECT_EQ(hits.count, std::vector<std::size_t>(3, 10));

  // Planned as well as given.
  HeadCache planned = sample_of_layer_2().prefill(kPrompt, params_with([&](DecodeParams& p) {
                                                    p.max_error = 0.05;
                                                    p.index = exact_search;
                                                  }));
  EXPECT_EQ(planned.plan().retriever, Retriever::custom);
  EXPECT_LE(planned.plan().expected_error, 0.8 * 0.05);
}

TEST(GivenPlan, FaultsOfASearchOfOnesOwnAreNamed) {
  const auto fails = [](const std::string& fault, const auto& spoil) {
    DecodeParams p = given_plan(Retriever::custom, {.k = 20});
    p.index = [&](const AnyMatrix& keys) -> SearchKeys {
      return [&, search = exact_search(keys)](MatrixView<float> q, std::size_t k, Hits& hits) {
        search(q, k, hits);
        spoil(hits);
      };
    };
    expect_error(ErrorCode::invalid_argument, {fault},
                 [&] { (void)sample_of_layer_2().prefill(kPrompt, p); });
  };
  fails("hits of 2 queries", [](Hits& h) { h.group = 2; });
  fails("59 ids", [](Hits& h) { h.ids.pop_back(); });
  fails("gave 21 keys", [](Hits& h) { h.count[0] = 21; });
  fails("key 999999", [](Hits& h) { h.ids[3] = 999999; });
  fails("twice", [](Hits& h) { h.ids[3] = h.ids[4]; });
  fails("the score nan", [](Hits& h) { h.scores[3] = NAN; });
  fails("the score -inf", [](Hits& h) { h.scores[19] = -INFINITY; });
  fails("scores that rise", [](Hits& h) {
    std::reverse(h.ids.begin(), h.ids.begin() + 20);
    std::reverse(h.scores.begin(), h.scores.begin() + 20);
  });
  // What other libraries call a score: with the softmax's scale, as a distance, of 8 bits too few.
  const auto each = [](const auto& change) {
    return [change](Hits& h) {
      std::transform(h.scores.begin(), h.scores.end(), h.scores.begin(), change);
    };
  };
  fails("inner product", each([](float s) { return s * 0.125F; }));
  fails("inner product", each([](float s) { return s - 100.0F; }));
  fails("inner product", each([](float) { return 0.0F; }));
  fails("inner product", [](Hits& h) { h.ids[0] = 1 - std::min<Id>(h.ids[0], 1); });
}

TEST(GivenPlan, ASearchOfOnesOwnMayRoundTo16Bits) {
  DecodeParams p = given_plan(Retriever::custom, {.k = 20});
  for (const bool half : {true, false}) {
    p.index = [half](const AnyMatrix& keys) -> SearchKeys {
      return [half, search = exact_search(keys)](MatrixView<float> q, std::size_t k, Hits& hits) {
        search(q, k, hits);
        for (float& s : hits.scores) s = half ? to_float(to_half(s)) : to_float(to_bfloat16(s));
      };
    };
    HeadCache cache = sample_of_layer_2().prefill(kPrompt, p);
    EXPECT_LT(sample_of_layer_2().decode(cache, 5), 1.0);
  }
}

TEST(GivenPlan, RulesKeepFewerKeysThanWereFound) {
  HeadCache top = sample_of_layer_2().prefill(kPrompt, given_plan(Retriever::flat, {.k = 200}));
  for (const auto& [rule, limit] : {std::pair{Rule::dipr, 3.0}, std::pair{Rule::mass, 0.9}}) {
    HeadCache cache = sample_of_layer_2().prefill(
        kPrompt, given_plan(Retriever::flat, {.rule = rule, .k = 200, .limit = limit, .least = 8}));
    EXPECT_EQ(cache.plan().stop.rule, rule);
    EXPECT_LT(cache.plan().keys_per_query, top.plan().keys_per_query);
    EXPECT_GE(cache.plan().keys_per_query, 64.0 + 8.0);
    DecodeScratch scratch;
    std::size_t least = 600, most = 0;
    double error = 0;
    for (std::size_t s = 0; s < 30; ++s) {
      const std::size_t position = cache.tokens();
      const Matrix<float> out = sample_of_layer_2().step(cache, scratch);
      least = std::min(least, cache.stats().retrieved);
      most = std::max(most, cache.stats().retrieved);
      for (const double e : sample_of_layer_2().errors(position, out)) error += e / 90;
    }
    EXPECT_GE(least, 24U);
    EXPECT_LT(least, most);  // it depends on the query
    EXPECT_LT(error, 2 * cache.plan().expected_error);
  }
}

TEST(GivenPlan, RulesArePlannedToo) {
  for (const Rule rule : {Rule::dipr, Rule::mass}) {
    HeadCache cache = sample_of_layer_2().prefill(kPrompt, params_with([&](DecodeParams& p) {
                                                    p.max_error = 0.05;
                                                    p.rule = rule;
                                                  }));
    EXPECT_TRUE(cache.plan().retriever == Retriever::flat ||
                cache.plan().retriever == Retriever::sketch);
    EXPECT_EQ(cache.plan().stop.rule, rule);
    EXPECT_GT(cache.plan().stop.limit, 0.0);
    EXPECT_LE(cache.plan().expected_error, 0.8 * 0.05);
    EXPECT_LE(sample_of_layer_2().decode(cache, 100, 4), 0.05);
  }
}

TEST(PinnedTokens, AreThoseThatTheEndOfThePromptAttendsTo) {
  constexpr std::size_t kPinned = 40, kSink = 128, kWindow = 512;
  const DecodeParams params = params_with([](DecodeParams& p) { p.pinned = kPinned; });
  HeadCache cache = sample_of_layer_2().prefill(kPrompt, params);
  ASSERT_EQ(cache.pinned().size(), kPinned);
  EXPECT_TRUE(std::is_sorted(cache.pinned().begin(), cache.pinned().end()));
  EXPECT_EQ(cache.indexed(), kPrompt - kSink - kWindow - kPinned);
  EXPECT_EQ(cache.tokens(), kPrompt);

  // Attention of the last 64 positions over what lies between sink and window, in f64.
  std::vector<double> mass(kPrompt);
  const std::vector<Id> between = test::range(kSink, kPrompt - kWindow);
  for (std::size_t position = kPrompt - 64; position < kPrompt; ++position) {
    for (std::size_t g = 0; g < 3; ++g) {
      const float* query = sample_of_layer_2().at(position).row(g);
      const auto all =
          test::reference(query, sample_of_layer_2().keys.view(),
                          {sample_of_layer_2().values.view()}, between, double{params.scale});
      for (const Id id : between)
        mass[id] += std::exp(double{params.scale} *
                                 double{inner_product(sample_of_layer_2().keys.view(), id, query)} -
                             all.lse);
    }
  }
  double least_pinned = 1e9, most_other = 0;
  for (const Id id : between) {
    const bool pinned = std::binary_search(cache.pinned().begin(), cache.pinned().end(), id);
    (pinned ? least_pinned : most_other) =
        pinned ? std::min(least_pinned, mass[id]) : std::max(most_other, mass[id]);
  }
  EXPECT_GE(least_pinned, most_other * 0.999);
}

TEST(PinnedTokens, AreAttendedExactlyAndNeverTwice) {
  DecodeParams params = given_plan(Retriever::flat, {.k = 100000});
  params.pinned = 40;
  params.tail_vectors = 0;
  HeadCache cache = sample_of_layer_2().prefill(2000, params);
  EXPECT_LT(sample_of_layer_2().decode(cache, 20), 1e-4);  // all keys are retrieved: full attention
  EXPECT_EQ(cache.stats().exact, 128U + 40 + 512 + 20);

  // Positions, although pinned tokens are not among the indexed.
  DecodeScratch scratch;
  Hits hits;
  const auto queries = sample_of_layer_2().at(cache.tokens());
  cache.retrieve(queries, cache.indexed(), scratch, hits);
  std::vector<Id> found(hits.row_ids(0).begin(), hits.row_ids(0).end());
  std::sort(found.begin(), found.end());
  std::vector<Id> wanted;
  for (const Id id : test::range(128, 2000 - 512))
    if (!std::binary_search(cache.pinned().begin(), cache.pinned().end(), id)) wanted.push_back(id);
  EXPECT_EQ(found, wanted);
  for (std::size_t r = 0; r < 50; ++r)
    EXPECT_EQ(hits.row_scores(1)[r],
              inner_product(sample_of_layer_2().keys.view(), hits.row_ids(1)[r], queries.row(1)));
}

TEST(PinnedTokens, ThereMayBeNoneToPin) {
  for (const std::size_t n : {100U, 640U, 641U, 650U}) {
    HeadCache cache =
        sample_of_layer_2().prefill(n, params_with([](DecodeParams& p) { p.pinned = 40; }));
    EXPECT_EQ(cache.pinned().size(), n > 640 ? std::min<std::size_t>(40, n - 640) : 0U);
    EXPECT_LT(sample_of_layer_2().decode(cache, 5), 1e-5);
  }
}

TEST(EightBitValues, TakeLessMemoryAndLittleError) {
  const DecodeParams usual = given_plan(Retriever::flat, {.k = 60});
  DecodeParams small = usual;
  small.int8_values = true;
  HeadCache a = sample_of_layer_2().prefill(kPrompt, usual),
            b = sample_of_layer_2().prefill(kPrompt, small);
  // dv = 64 values of two bytes become one each, and a scale.
  EXPECT_EQ(a.bytes() - b.bytes(), a.indexed() * (64 - sizeof(float)));
  EXPECT_EQ(a.full_bytes(), a.indexed() * (64 + 64) * 2);
  EXPECT_EQ(b.full_bytes(), a.full_bytes());
  DecodeScratch scratch;
  double off = 0;
  for (std::size_t s = 0; s < 30; ++s) {
    const Matrix<float> exact = sample_of_layer_2().step(a, scratch),
                        coded = sample_of_layer_2().step(b, scratch);
    for (std::size_t g = 0; g < 3; ++g)
      off += test::relative_error(coded.row(g), exact.row(g), 64) / 90;
  }
  EXPECT_GT(off, 0.0);
  EXPECT_LT(off, 0.01);
}

TEST(EightBitValues, StayThroughARefresh) {
  DecodeParams params = given_plan(Retriever::flat, {.k = 60});
  params.int8_values = true;
  params.horizon = 64;
  HeadCache cache = sample_of_layer_2().prefill(kPrompt, params);
  EXPECT_LE(sample_of_layer_2().decode(cache, 130, 4), 0.1);
  EXPECT_EQ(cache.indexed(), kPrompt - 640 + 128);
  DecodeParams everything = params;
  test::give(everything, Retriever::everything, 1);
  HeadCache all = sample_of_layer_2().prefill(kPrompt, everything);
  EXPECT_LE(sample_of_layer_2().decode(all, 10), 0.01);
}

TEST(GivenPlan, BadInputIsNamed) {
  const auto refused = [](const std::string& fault, const DecodeParams& p) {
    expect_error(ErrorCode::invalid_argument, {fault},
                 [&] { (void)sample_of_layer_2().prefill(100, p); });
  };
  refused("limit is -1", given_plan(Retriever::flat, {.rule = Rule::dipr, .limit = -1}));
  refused("limit is 0, must be in (0, 1]", given_plan(Retriever::flat, {.rule = Rule::mass}));
  refused("limit is 1.5", given_plan(Retriever::flat, {.rule = Rule::mass, .limit = 1.5}));
  refused("no index to make one", given_plan(Retriever::custom, {}));
  DecodeParams p = given_plan(Retriever::projection, {});
  p.given->target_recall = 1.0;
  refused("target_recall is 1", p);
}

}  // namespace
}  // namespace keyseek
