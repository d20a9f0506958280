// How a head is planned, and whether decoding keeps what the plan promises.
#include "decode/plan.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "decode/answered_queries.hpp"
#include "file/temporary_directory.hpp"
#include "keyseek/score.hpp"
#include "support/decode_head.hpp"
#include "support/tail_problem.hpp"

namespace keyseek {
namespace {

using test::DecodeHead;
using test::elements;

constexpr std::size_t kPrompt = 7168;  // of the sample; 1,024 tokens are decoded

const DecodeHead& sample(std::size_t layer) {
  static const std::array<DecodeHead, 2> heads = {test::sample_head(2), test::sample_head(15)};
  return heads[layer == 2 ? 0 : 1];
}

DecodeParams with_error(const DecodeHead& head, double max_error) {
  return test::with(head.params, [&](DecodeParams& p) { p.max_error = max_error; });
}

bool looks_at_every_key(const HeadPlan& plan) {
  return plan.retriever == Retriever::flat || plan.retriever == Retriever::sketch;
}

/// What any plan must say of itself.
void expect_consistent(const HeadCache& cache, const DecodeParams& params) {
  const HeadPlan& plan = cache.plan();
  EXPECT_EQ(plan.tail_vectors, cache.tail().vectors());
  EXPECT_LE(plan.tail_vectors, params.tail_vectors);
  EXPECT_LE(plan.stop.k, params.max_k);
  const double row = static_cast<double>(cache.dim() + cache.value_dim()) * 2;
  if (plan.retriever == Retriever::everything) {
    EXPECT_EQ(plan.stop.k, 0U);
    EXPECT_EQ(plan.tail_vectors, 0U);
    EXPECT_EQ(plan.expected_error, 0.0);
    EXPECT_EQ(plan.keys_per_query, static_cast<double>(cache.indexed()));
    EXPECT_EQ(plan.bytes_per_step, static_cast<double>(cache.indexed()) * row);
    return;
  }
  EXPECT_LE(plan.expected_error, params.safety * params.max_error);
  EXPECT_EQ(plan.keys_per_query, static_cast<double>(plan.stop.k + plan.tail_vectors));
  EXPECT_EQ(plan.stop.k == 0, plan.retriever == Retriever::none);
  EXPECT_LT(plan.bytes_per_step, static_cast<double>(cache.indexed()) * row);
  const double values = static_cast<double>(cache.value_dim()) * 2;
  EXPECT_GE(plan.bytes_per_step,
            static_cast<double>(cache.group() * (plan.stop.k + plan.tail_vectors)) * values);
  EXPECT_EQ(plan.target_recall == 1.0, looks_at_every_key(plan));
  EXPECT_EQ(plan.target_recall == 0.0, plan.retriever == Retriever::none);
  if (plan.tail_vectors > 0) {
    EXPECT_EQ(cache.tail().group(), cache.group());
    EXPECT_LT(plan.expected_error, plan.error_without_tail);
  }
}

TEST(Plan, DecodingTheSampleKeepsTheError) {
  for (const std::size_t layer : {2U, 15U}) {
    const DecodeHead& head = sample(layer);
    double bytes = 0;
    for (const double max_error : {0.1, 0.05, 0.02}) {
      // Layer 2 needs retrieval; layer 15 is asked for the cheapest plan there is.
      const DecodeParams params = test::with(
          with_error(head, max_error), [&](DecodeParams& p) { p.least_k = layer == 2 ? 16 : 0; });
      HeadCache cache = head.prefill(kPrompt, params);
      EXPECT_EQ(cache.indexed(), kPrompt - 128 - 512);
      expect_consistent(cache, params);
      const HeadPlan plan = cache.plan();
      EXPECT_NE(plan.retriever, Retriever::everything);
      EXPECT_LE(head.decode(cache, 1024, 8), max_error) << "layer " << layer;
      EXPECT_EQ(cache.tokens(), 8192U);
      EXPECT_LT(cache.stats().exact, 2000U);
      // A smaller error costs more, and all of them much less than the tokens.
      EXPECT_GE(plan.bytes_per_step, bytes) << "layer " << layer << " max_error " << max_error;
      bytes = plan.bytes_per_step;
      EXPECT_LT(bytes, 0.4 * static_cast<double>(cache.indexed()) * 256);
      EXPECT_LT(static_cast<double>(cache.stats().bytes_read), 1.5 * bytes + 4096);
      EXPECT_TRUE(looks_at_every_key(plan) || (layer == 15 && plan.retriever == Retriever::none));
      EXPECT_EQ(plan.tail_vectors, 64U);
    }
  }
}

TEST(Plan, ReadsLessWhereItMayMiss) {
  const DecodeHead& head = sample(2);
  const auto plan = [&](bool may_miss) {
    const DecodeParams params =
        test::with(with_error(head, 0.05), [&](DecodeParams& p) { p.may_miss = may_miss; });
    HeadCache cache = head.prefill(kPrompt, params);
    expect_consistent(cache, params);
    EXPECT_LE(head.decode(cache, 200, 8), 0.05);
    return cache.plan();
  };
  const HeadPlan complete = plan(false), less = plan(true);
  EXPECT_TRUE(looks_at_every_key(complete));
  EXPECT_EQ(less.retriever, Retriever::projection);
  EXPECT_LT(less.bytes_per_step, 0.5 * complete.bytes_per_step);
}

TEST(Plan, AnIndexGrowsWithTheTokens) {
  const DecodeHead& head = sample(2);
  const DecodeParams params = test::with(with_error(head, 0.02), [](DecodeParams& p) {
    p.horizon = 64;
    p.share = 0.05;
    p.may_miss = true;
  });
  HeadCache cache = head.prefill(kPrompt, params);
  ASSERT_EQ(cache.plan().retriever, Retriever::projection);
  DecodeScratch scratch;
  EXPECT_LE(head.decode(cache, 129 + 30, 3), 0.02);  // two refreshes
  EXPECT_EQ(cache.indexed(), kPrompt - 640 + 128);
  ASSERT_EQ(cache.plan().retriever, Retriever::projection);
  expect_consistent(cache, params);
  Hits hits;
  std::size_t fresh = 0;
  for (std::size_t s = 0; s < 200; ++s) {
    const auto queries = head.at(cache.tokens() + s);
    cache.retrieve(queries, 30, scratch, hits);
    for (std::size_t g = 0; g < 3; ++g) {
      for (std::size_t r = 0; r < hits.count[g]; ++r) {
        const Id id = hits.row_ids(g)[r];
        ASSERT_GE(id, 128U);
        ASSERT_LT(id, 128 + cache.indexed());
        ASSERT_EQ(hits.row_scores(g)[r], inner_product(head.keys.view(), id, queries.row(g)));
        fresh += id >= kPrompt - 512 ? 1 : 0;
      }
    }
  }
  EXPECT_GT(fresh, 100U);  // tokens that were moved are found
}

TEST(Plan, IsTheSameAtAnyNumberOfThreads) {
  const DecodeHead& head = sample(2);
  for (const auto& [prompt, wanted] : {std::pair{kPrompt, Retriever::projection},
                                       std::pair{std::size_t{2500}, Retriever::sketch}}) {
    const DecodeParams params = test::with(with_error(head, 0.02), [](DecodeParams& p) {
      p.share = 0.03;
      p.horizon = 64;
      p.may_miss = true;
    });
    HeadCache one = head.prefill(prompt, params, {.threads = 1}),
              two = head.prefill(prompt, params, {.threads = 2});
    EXPECT_EQ(one.plan().retriever, wanted);
    DecodeScratch scratch;
    const std::size_t steps = wanted == Retriever::sketch ? 80 : 40;
    for (std::size_t s = 0; s < steps; ++s) {
      const Matrix<float> a = head.step(one, scratch), b = head.step(two, scratch);
      ASSERT_EQ(elements(a), elements(b)) << "step " << s;
    }
    const HeadPlan &a = one.plan(), &b = two.plan();
    EXPECT_EQ(a.retriever, b.retriever);
    EXPECT_EQ(a.stop.k, b.stop.k);
    EXPECT_EQ(a.target_recall, b.target_recall);
    EXPECT_EQ(a.tail_vectors, b.tail_vectors);
    EXPECT_EQ(a.expected_error, b.expected_error);
    EXPECT_EQ(a.error_without_tail, b.error_without_tail);
    EXPECT_EQ(a.bytes_per_step, b.bytes_per_step);
    EXPECT_EQ(one.bytes(), two.bytes());
  }
}

TEST(Plan, TheLimitsAreKept) {
  const DecodeHead& head = sample(2);
  const auto plan = [&](double max_error, const auto& change) {
    const DecodeParams params = test::with(with_error(head, max_error), change);
    HeadCache cache = head.prefill(2500, params);
    expect_consistent(cache, params);
    EXPECT_LE(head.decode(cache, 100, 5), max_error);
    return cache.plan();
  };
  const HeadPlan usual = plan(0.02, [](DecodeParams&) {});
  EXPECT_EQ(usual.retriever, Retriever::sketch);
  EXPECT_EQ(usual.tail_vectors, 64U);
  const HeadPlan bare = plan(0.02, [](DecodeParams& p) {
    p.tail_vectors = 0;
    p.max_planted_error = 1;
  });
  EXPECT_EQ(bare.tail_vectors, 0U);
  EXPECT_GT(bare.stop.k, usual.stop.k);
  EXPECT_NEAR(bare.expected_error, bare.error_without_tail, 1e-4);  // a flat search is exact
  const HeadPlan odd = plan(0.03, [](DecodeParams& p) { p.tail_vectors = 17; });
  EXPECT_TRUE(odd.tail_vectors == 0 || odd.tail_vectors == 17);
  // Without any retrieval this head cannot keep so small an error.
  const auto no_keys = [](DecodeParams& p) {
    p.least_k = p.max_k = 0;
    p.max_planted_error = 1;
  };
  EXPECT_EQ(plan(0.004, no_keys).retriever, Retriever::everything);
  EXPECT_EQ(plan(0.1, no_keys).retriever, Retriever::none);
  const auto if_need_be = [&](DecodeParams& p) {
    p.least_k = 0;
    p.max_planted_error = 1;
  };
  EXPECT_EQ(plan(0.1, if_need_be).retriever, Retriever::none);
  EXPECT_EQ(plan(0.1, [](DecodeParams&) {}).stop.k, 16U);
  EXPECT_EQ(plan(0.1, [](DecodeParams& p) { p.least_k = 101; }).stop.k, 150U);
  EXPECT_EQ(plan(1e-6, [](DecodeParams&) {}).retriever, Retriever::everything);
  const auto many = [](DecodeParams& p) { p.least_indexed = 2500 - 640 + 1; };
  EXPECT_EQ(plan(0.1, many).retriever, Retriever::everything);
  // 100 indexed tokens are read faster than a tail and the keys of three queries.
  HeadCache few = head.prefill(
      740, test::with(with_error(head, 0.002), [](DecodeParams& p) { p.least_indexed = 1; }));
  EXPECT_EQ(few.indexed(), 100U);
  EXPECT_EQ(few.plan().retriever, Retriever::everything);
  // The fewest queries that can be asked for.
  (void)plan(0.2, [](DecodeParams& p) { p.observed = p.held_out = 1; });
}

TEST(Plan, WorksWithoutRotation) {
  const test::TailProblem problem(
      {.n = 2000, .group = 3, .dtype = Dtype::f16, .train_steps = 2300});
  DecodeHead head;
  head.keys = problem.all_keys;
  head.values = problem.all_values;
  head.f32_keys = to_f32(head.keys.view());
  head.f32_values = to_f32(head.values.view());
  head.queries = problem.data.training.train;
  head.group = 3;
  head.params = {.max_error = 0.05,
                 .scale = 0.5F,
                 .shift = false,
                 .sink = 20,
                 .window = 50,
                 .horizon = 100,
                 .least_indexed = 500};
  HeadCache cache = head.prefill(1700, head.params);
  expect_consistent(cache, head.params);
  EXPECT_EQ(cache.plan().retriever, Retriever::sketch);
  EXPECT_EQ(cache.plan().tail_vectors, 64U);
  EXPECT_LE(head.decode(cache, 250, 5), 0.05);
  EXPECT_EQ(cache.indexed(), 1700U - 70 + 200);
}

/// 200 tokens without structure, 10 of them sink and 40 window, and the queries of some positions.
struct ProbeProblem {
  DecodeHead head = test::normal_head(200, 2);
  Matrix<float> queries;
  PlanInput input;

  explicit ProbeProblem(const std::vector<std::size_t>& positions)
      : queries(positions.size() * 2, 32) {
    for (std::size_t i = 0; i < positions.size(); ++i)
      std::copy_n(head.at(positions[i]).data, 64, queries.row(i * 2));
    const AnyMatrixView keys = head.keys.view(), values = head.values.view();
    input.tokens.sink = {keys.slice(0, 10), {values.slice(0, 10)}};
    input.tokens.indexed = {keys.slice(10, 150), {values.slice(10, 150)}};
    input.tokens.recent = {keys.slice(160, 40), {values.slice(160, 40)}};
    input.queries = queries;
    input.positions = positions;
    input.group = 2;
  }
};

TEST(Plan, MovedQueriesAttendWhatTheyWouldSee) {
  const std::vector<std::size_t> positions = {20, 21, 40, 41, 90, 150, 151, 199};
  const ProbeProblem problem(positions);
  const DecodeHead& head = problem.head;
  const PlanInput& input = problem.input;
  const AnyMatrixView keys = head.keys.view(), values = head.values.view();
  DecodeParams params = head.params;
  params.horizon = 1;  // the first of a run is asked at position 200, its next at 201
  const AnsweredQueries asked = moved_queries(input, {0, 1, 2, 3, 5, 6}, 2, params, 1);
  ASSERT_EQ(asked.queries.rows(), 12U);
  for (std::size_t i = 0; i < 6; ++i) {
    const std::size_t row = i < 4 ? i : i + 1, at = positions[row], ahead = i % 2;
    Matrix<float> moved(2, 32);
    std::copy_n(head.at(at).data, 64, moved.data());
    const std::vector<double> shifts(2, static_cast<double>(200 + ahead) - static_cast<double>(at));
    rope_shift(moved, shifts, params.rope);
    for (std::size_t g = 0; g < 2; ++g) {
      const float* query = asked.queries.row(i * 2 + g);
      EXPECT_TRUE(std::equal(query, query + 32, moved.row(g)));
      // Sink and window as they stand, then its own newest tokens as it saw them.
      std::vector<Id> ids = test::range(0, 10);
      for (const Id id : test::range(160, 200)) ids.push_back(id);
      const auto far = test::reference(query, keys, {values}, ids, 0.25);
      const auto near = test::reference(head.at(at).row(g), keys, {values},
                                        test::range(at - ahead, at + 1), 0.25);
      const double lse = near.lse + std::log1p(std::exp(far.lse - near.lse));
      std::vector<double> out(24);
      for (std::size_t c = 0; c < 24; ++c)
        out[c] = far.out[c] * std::exp(far.lse - lse) + near.out[c] * std::exp(near.lse - lse);
      EXPECT_NEAR(asked.exact.lse[i * 2 + g], lse, 1e-5);
      EXPECT_NEAR(asked.exact.best[i * 2 + g], std::max(far.best, near.best), 1e-5);
      EXPECT_LT(test::relative_error(asked.exact.out.row(i * 2 + g), out), 1e-5);
    }
  }
}

TEST(Plan, WindowProbesAttendWhatTheyDid) {
  const std::vector<std::size_t> positions = {170, 171, 185, 199};
  const ProbeProblem problem(positions);
  const DecodeHead& head = problem.head;
  const PlanInput& input = problem.input;
  const AnyMatrixView keys = head.keys.view(), values = head.values.view();
  const AnsweredQueries asked = newest_queries(input, {0, 1, 3}, 1, head.params);
  const AnsweredQueries all = joined(asked, newest_queries(input, {2}, 1, head.params));
  ASSERT_EQ(all.queries.rows(), 8U);
  const std::vector<std::size_t> rows = {0, 1, 3, 2};
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const std::size_t at = positions[rows[i]];
    std::vector<Id> ids = test::range(0, 10);
    for (const Id id : test::range(160, at + 1)) ids.push_back(id);
    for (std::size_t g = 0; g < 2; ++g) {
      const float* query = all.queries.row(i * 2 + g);
      EXPECT_TRUE(std::equal(query, query + 32, head.at(at).row(g)));
      const auto truth = test::reference(query, keys, {values}, ids, 0.25);
      EXPECT_LT(test::relative_error(all.exact.out.row(i * 2 + g), truth.out), 1e-5);
      EXPECT_NEAR(all.exact.lse[i * 2 + g], truth.lse, 1e-5);
      EXPECT_NEAR(all.exact.best[i * 2 + g], truth.best, 1e-5);
    }
  }
}

TEST(Plan, MemoryIsBounded) {
  const DecodeHead& head = sample(2);
  const auto memory = [&](double most) {
    const HeadCache cache = head.prefill(kPrompt, test::with(with_error(head, 0.05), [&](auto& p) {
                                           p.max_memory = most;
                                           p.may_miss = true;
                                         }));
    EXPECT_EQ(cache.plan().retriever, Retriever::projection);
    return static_cast<double>(cache.bytes()) / (kPrompt * 256.0);
  };
  const double usual = memory(1.6), wide = memory(2.5);
  EXPECT_LE(usual, 1.6);
  EXPECT_GT(wide, usual + 0.1);
  test::expect_error(ErrorCode::invalid_argument, {"max_memory is 1,"}, [&] { (void)memory(1.0); });
}

TEST(Plan, TokensAreOneSequence) {
  const DecodeHead head = test::normal_head(30, 2);
  const AnyMatrixView keys = head.keys.view(), values = head.values.view();
  const Tokens tokens = {{keys.slice(0, 5), {values.slice(0, 5)}},
                         {keys.slice(5, 0), {values.slice(5, 0)}},
                         {keys.slice(5, 25), {values.slice(5, 25)}}};
  EXPECT_EQ(tokens.size(), 30U);
  AttendScratch scratch;
  Partial part, all;
  for (std::size_t first = 0; first < 30; ++first) {
    for (std::size_t last = first + 1; last <= 30; last += 3) {
      all.reset(2, 24);
      tokens.attend(head.at(3), first, last, 0.25F, scratch, part, all);
      test::expect_close(
          all, 1,
          test::reference(head.at(3).row(1), keys, {values}, test::range(first, last), 0.25));
    }
  }
  all.reset(2, 24);
  tokens.attend(head.at(3), 7, 7, 0.25F, scratch, part, all);
  EXPECT_EQ(all.lse[0], static_cast<float>(-test::kInfinity));
}

TEST(Plan, RetrieversHaveNames) {
  EXPECT_EQ(to_string(Retriever::everything), "everything");
  EXPECT_EQ(to_string(Retriever::none), "none");
  EXPECT_EQ(to_string(Retriever::flat), "flat");
  EXPECT_EQ(to_string(Retriever::sketch), "sketch");
  EXPECT_EQ(to_string(Retriever::projection), "projection");
  EXPECT_EQ(to_string(Retriever::custom), "custom");
  EXPECT_EQ(to_string(Rule::top_k), "top-k");
  EXPECT_EQ(to_string(Rule::dipr), "dipr");
  EXPECT_EQ(to_string(Rule::mass), "mass");
}

}  // namespace
}  // namespace keyseek
