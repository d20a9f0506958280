// A head whose logits are soft-capped, or whose query heads have null logits, against naive
// attention in f64.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "file/temporary_directory.hpp"
#include "keyseek/score.hpp"
#include "support/decode_head.hpp"

namespace keyseek {
namespace {

using test::DecodeHead;
using test::elements;
using test::expect_error;
using test::given_plan;
using test::logits_of;
using test::normal_head;
using test::sample_of_layer_2;
using test::with;

constexpr std::size_t kPrompt = 2200;

/// Null logits around `level`, another one for each query head.
std::vector<float> nulls_around(float level, std::size_t group) {
  std::vector<float> nulls(group);
  for (std::size_t g = 0; g < group; ++g) nulls[g] = level + 0.25F * static_cast<float>(g);
  return nulls;
}

/// |out - full| / |full| of query head g, in f64.
double error_of(const DecodeHead& head, const DecodeParams& params, std::size_t position,
                const Matrix<float>& out, std::size_t g) {
  const auto truth =
      test::reference(head.at(position).row(g), head.keys.view(), {head.values.view()},
                      test::range(0, position + 1), logits_of(params, g));
  return test::relative_error(out.row(g), truth.out);
}

/// Mean error of the next `steps` steps, measured at every so many of them.
double decode(const DecodeHead& head, HeadCache& cache, std::size_t steps, std::size_t every) {
  DecodeScratch scratch;
  double sum = 0;
  std::size_t count = 0;
  for (std::size_t s = 0; s < steps; ++s) {
    const std::size_t position = cache.tokens();
    const Matrix<float> out = head.step(cache, scratch);
    if (s % every != 0) continue;
    for (std::size_t g = 0; g < head.group; ++g, ++count)
      sum += error_of(head, cache.params(), position, out, g);
  }
  return sum / static_cast<double>(count);
}

/// Worst error of some steps through refreshes, when all is attended.
double worst_of_everything(std::size_t group, float softcap, const std::vector<float>& nulls) {
  const DecodeHead head = normal_head(260, group);
  const DecodeParams params = with(head.params, [&](DecodeParams& p) {
    p.softcap = softcap;
    p.null_logits = nulls;
    p.sink = 8;
    p.window = 12;
    p.horizon = 16;
  });
  HeadCache cache = head.prefill(200, params);
  EXPECT_EQ(cache.plan().retriever, Retriever::everything);
  DecodeScratch scratch;
  double worst = 0;
  while (cache.tokens() < 240) {  // past refreshes
    const std::size_t position = cache.tokens();
    const Matrix<float> out = head.step(cache, scratch);
    for (std::size_t g = 0; g < group; ++g)
      worst = test::worse(worst, error_of(head, params, position, out, g));
  }
  return worst;
}

TEST(HeadLogits, AHeadThatAttendsToEverythingIsExact) {
  for (std::size_t group = 1; group <= 8; ++group) {
    for (const float softcap : {0.0F, 1.0F, 50.0F}) {
      EXPECT_LT(worst_of_everything(group, softcap, {}), 1e-5) << group << ", " << softcap;
      for (const float level : {-5.0F, 0.0F, 5.0F, 20.0F})
        EXPECT_LT(worst_of_everything(group, softcap, nulls_around(level, group)), 1e-5)
            << group << ", " << softcap << ", " << level;
    }
  }
}

/// Parameters of the sample's layer, whose logits are of dozens.
DecodeParams sample_params(float softcap, const std::vector<float>& nulls) {
  return with(sample_of_layer_2().params, [&](DecodeParams& p) {
    p.softcap = softcap;
    p.null_logits = nulls;
    p.horizon = 64;
  });
}

/// Exact search by a loop.
SearchKeys exact_search(const AnyMatrix& keys) {
  return [keys](MatrixView<float> queries, std::size_t k, Hits& hits) {
    hits.group = queries.rows;
    hits.k = k;
    hits.ids.resize(queries.rows * k);
    hits.scores.resize(queries.rows * k);
    hits.count.assign(queries.rows, k);
    for (std::size_t g = 0; g < queries.rows; ++g) {
      std::vector<std::pair<float, Id>> order;
      for (Id i = 0; i < keys.rows(); ++i)
        order.emplace_back(-inner_product(keys.view(), i, queries.row(g)), i);
      std::sort(order.begin(), order.end());
      for (std::size_t r = 0; r < k; ++r) {
        hits.ids[g * k + r] = order[r].second;
        hits.scores[g * k + r] = -order[r].first;
      }
    }
  };
}

TEST(HeadLogits, PlannedHeadsKeepTheirPromise) {
  std::size_t retrieving = 0;
  for (const float softcap : {0.0F, 1.0F, 50.0F}) {
    for (const float level : {-5.0F, 0.0F, 5.0F, 20.0F}) {
      const DecodeParams params = sample_params(softcap, nulls_around(level, 3));
      HeadCache cache = sample_of_layer_2().prefill(kPrompt, params);
      retrieving += cache.plan().retriever != Retriever::everything ? 1 : 0;
      EXPECT_LE(cache.plan().expected_error, 0.8 * 0.05);
      EXPECT_LE(decode(sample_of_layer_2(), cache, 70, 6), 0.05)  // past a refresh
          << softcap << ", " << level << ", " << to_string(cache.plan().retriever);
    }
  }
  EXPECT_EQ(retrieving, 12U);
}

TEST(HeadLogits, EveryRetrieverServesThem) {
  for (const std::optional<Retriever> retriever :
       {std::optional(Retriever::none), std::optional(Retriever::flat),
        std::optional(Retriever::sketch), std::optional(Retriever::projection), test::kComplete,
        std::optional(Retriever::custom)}) {
    for (const float softcap : {1.0F, 50.0F}) {
      const DecodeParams params =
          with(sample_params(softcap, nulls_around(5.0F, 3)), [&](DecodeParams& p) {
            test::give(p, retriever, 100);
            p.int8_values = retriever == Retriever::flat;
            p.index = retriever == Retriever::custom ? exact_search : IndexKeys();
          });
      HeadCache cache = sample_of_layer_2().prefill(kPrompt, params);
      const double expected = cache.plan().expected_error;
      EXPECT_LT(expected, 0.15);
      EXPECT_LE(decode(sample_of_layer_2(), cache, 70, 6), 1.5 * expected)  // past a refresh
          << to_string(cache.plan().retriever) << ", softcap " << softcap;
    }
  }
}

/// Keys attended in 20 steps of a given plan.
std::size_t attended(const StopRule& stop, float softcap, const std::vector<float>& nulls) {
  const DecodeParams params = with(sample_params(softcap, nulls),
                                   [&](DecodeParams& p) { test::give(p, Retriever::flat, stop); });
  HeadCache cache = sample_of_layer_2().prefill(kPrompt, params);
  DecodeScratch scratch;
  std::size_t count = 0;
  for (std::size_t s = 0; s < 20; ++s) {
    (void)sample_of_layer_2().step(cache, scratch);
    count += cache.stats().retrieved;
  }
  return count;
}

TEST(HeadLogits, StopRulesSeeWhatTheyMust) {
  const StopRule dipr = {.rule = Rule::dipr, .k = 200, .limit = 3};
  const StopRule mass = {.rule = Rule::mass, .k = 200, .limit = 0.9};
  const std::vector<float> none, high = nulls_around(20.0F, 3), huge(3, 1e30F);
  // DIPR asks how far a key is from the best one, and a null logit is no key.
  EXPECT_EQ(attended(dipr, 0, high), attended(dipr, 0, none));
  // It is mass that need not be looked for.
  EXPECT_LT(attended(mass, 0, high), attended(mass, 0, none));
  EXPECT_EQ(attended(mass, 0, huge), 0U);
  EXPECT_EQ(attended({.rule = Rule::mass, .k = 200, .limit = 1}, 0, huge), 20U * 3 * 200);
  // Under a cap of 1 all logits are within 2, and hardly any key weighs much more than others.
  EXPECT_LT(attended(dipr, 0, none), 20U * 3 * 200);
  EXPECT_EQ(attended(dipr, 1, none), 20U * 3 * 200);
  EXPECT_GT(attended(mass, 1, none), attended(mass, 0, none));
}

TEST(HeadLogits, ThePlanSeesWhatAStepDoes) {
  const auto planned = [](const StopRule& stop, float softcap, const std::vector<float>& nulls) {
    const DecodeParams params = with(sample_params(softcap, nulls), [&](DecodeParams& p) {
      test::give(p, Retriever::flat, stop);
    });
    return sample_of_layer_2().prefill(kPrompt, params).plan();
  };
  // Under a cap of 1 DIPR keeps all that was found.
  const HeadPlan capped = planned({.rule = Rule::dipr, .k = 200, .limit = 3}, 1.0F, {});
  EXPECT_EQ(capped.keys_per_query, static_cast<double>(200 + capped.tail_vectors));
  // Where null logits take everything, no key is missed.
  const HeadPlan nothing =
      planned({.rule = Rule::mass, .k = 200, .limit = 0.9}, 0.0F, {1e30F, 1e30F, 1e30F});
  EXPECT_EQ(nothing.expected_error, 0.0);
  EXPECT_EQ(nothing.keys_per_query, 0.0);
}

TEST(HeadLogits, PinnedTokensAreThoseThatGetTheMostAttention) {
  constexpr std::size_t kPinned = 40, kSink = 128, kWindow = 512;
  const DecodeParams params =
      with(sample_params(10.0F, {20.0F, -5.0F, 0.0F}), [](DecodeParams& p) { p.pinned = kPinned; });
  const HeadCache cache = sample_of_layer_2().prefill(kPrompt, params);
  ASSERT_EQ(cache.pinned().size(), kPinned);
  const AnyMatrixView keys = sample_of_layer_2().keys.view();
  std::vector<double> mass(kPrompt);
  const std::vector<Id> between = test::range(kSink, kPrompt - kWindow);
  for (std::size_t position = kPrompt - 64; position < kPrompt; ++position) {
    for (std::size_t g = 0; g < 3; ++g) {
      const float* query = sample_of_layer_2().at(position).row(g);
      const auto naive = logits_of(params, g);
      const auto all =
          test::reference(query, keys, {sample_of_layer_2().values.view()}, between, naive);
      for (const Id id : between)
        mass[id] += std::exp(naive.of(double{inner_product(keys, id, query)}) - all.lse);
    }
  }
  double least_pinned = 1e9, most_other = 0;
  for (const Id id : between) {
    if (std::binary_search(cache.pinned().begin(), cache.pinned().end(), id))
      least_pinned = std::min(least_pinned, mass[id]);
    else
      most_other = std::max(most_other, mass[id]);
  }
  EXPECT_GE(least_pinned, most_other * 0.999);
}

TEST(HeadLogits, AFileHoldsThem) {
  const test::TemporaryDirectory directory;
  const auto path = directory / "head.ks", again = directory / "again.ks";
  for (const Retriever retriever :
       {Retriever::everything, Retriever::flat, Retriever::projection}) {
    const DecodeParams params = with(sample_params(30.0F, {5.0F, -2.5F, 11.0F}),
                                     [&](DecodeParams& p) { test::give(p, retriever, 40); });
    HeadCache saved = sample_of_layer_2().prefill(2500, params);
    saved.save(path);
    HeadCache loaded = HeadCache::load(path);
    EXPECT_EQ(loaded.params().softcap, 30.0F);
    EXPECT_EQ(loaded.params().null_logits, params.null_logits);
    loaded.save(again);
    EXPECT_EQ(test::read_bytes(again), test::read_bytes(path));
    DecodeScratch a, b;
    for (std::size_t s = 0; s < 70; ++s)  // past a refresh
      ASSERT_EQ(elements(sample_of_layer_2().step(loaded, a)),
                elements(sample_of_layer_2().step(saved, b)))
          << to_string(retriever) << ", step " << s;
  }
}

TEST(HeadLogits, WrongOnesAreNamed) {
  const DecodeHead head = normal_head(50, 2);
  const auto wrong = [&](const std::string& fault, const auto& change) {
    expect_error(ErrorCode::invalid_argument, {fault},
                 [&] { (void)head.prefill(50, with(head.params, change)); });
  };
  for (const float x : {-1.0F, std::nanf(""), HUGE_VALF})
    wrong("softcap is", [&](DecodeParams& p) { p.softcap = x; });
  wrong("null_logits has 1 numbers", [](DecodeParams& p) { p.null_logits = {1.0F}; });
  wrong("null_logits has 4 numbers", [](DecodeParams& p) { p.null_logits = {1, 2, 3, 4}; });
  for (const float x : {std::nanf(""), HUGE_VALF, -HUGE_VALF})
    wrong("null_logits[1] is", [&](DecodeParams& p) { p.null_logits = {1.0F, x}; });
}

}  // namespace
}  // namespace keyseek
