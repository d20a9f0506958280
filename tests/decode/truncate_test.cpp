// Taking tokens back from a head: at every kind of place, what is left is attended as it is.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <string>

#include "file/temporary_directory.hpp"
#include "keyseek/decode_pool.hpp"
#include "support/decode_head.hpp"
#include "support/indexes.hpp"
#include "support/reference.hpp"

namespace keyseek {
namespace {

using test::DecodeHead;
using test::elements;
using test::with;

constexpr ErrorCode kInvalid = ErrorCode::invalid_argument;
constexpr std::size_t kGroup = 2, kPrompt = 300, kSink = 4, kWindow = 16, kHorizon = 70, kK = 20;

DecodeHead small_head(const DecodeParams& change = {}) {
  return test::in_few_tokens(test::normal_head(kPrompt + 300, kGroup), change, kWindow, kHorizon);
}

DecodeParams given(Retriever retriever, std::size_t tail_vectors = 0) {
  DecodeParams params;
  params.tail_vectors = tail_vectors;
  test::give(params, retriever, kK);
  return params;
}

std::size_t recent_of(const HeadCache& cache, std::size_t sink = kSink) {
  return cache.tokens() - sink - cache.pinned().size() - cache.indexed();
}

/// Attention of the newest token's query g over `positions`.
std::vector<double> attention(const DecodeHead& head, const HeadCache& cache, std::size_t g,
                              const std::vector<std::size_t>& positions) {
  const float* query = head.at(cache.tokens() - 1).row(g);
  std::vector<double> out(head.values.cols());
  double sum = 0;
  for (const std::size_t i : positions) {
    double product = 0;
    for (std::size_t j = 0; j < head.keys.cols(); ++j)
      product += double{query[j]} * double{head.f32_keys.row(i)[j]};
    const double weight = std::exp(double{head.params.scale} * product);
    sum += weight;
    for (std::size_t j = 0; j < out.size(); ++j)
      out[j] += weight * double{head.f32_values.row(i)[j]};
  }
  for (double& x : out) x /= sum;
  return out;
}

/// The exact tokens, and of the indexed the k best.
std::vector<std::size_t> attended(const DecodeHead& head, const HeadCache& cache, std::size_t g) {
  const std::size_t first_recent = cache.tokens() - recent_of(cache);
  const std::set<std::size_t> pinned(cache.pinned().begin(), cache.pinned().end());
  std::vector<std::size_t> positions, indexed;
  for (std::size_t i = 0; i < cache.tokens(); ++i)
    (i < kSink || i >= first_recent || pinned.contains(i) ? positions : indexed).push_back(i);
  EXPECT_EQ(indexed.size(), cache.indexed());
  const float* query = head.at(cache.tokens() - 1).row(g);
  const auto product = [&](std::size_t i) {
    return std::inner_product(query, query + head.keys.cols(), head.f32_keys.row(i), 0.0);
  };
  std::sort(indexed.begin(), indexed.end(),
            [&](std::size_t a, std::size_t b) { return product(a) > product(b); });
  if (cache.plan().retriever != Retriever::everything)
    indexed.resize(std::min(indexed.size(), cache.plan().stop.k));
  positions.insert(positions.end(), indexed.begin(), indexed.end());
  return positions;
}

void expect_honest(const DecodeHead& head, HeadCache& cache, std::size_t steps,
                   double tolerance = 1e-4) {
  DecodeScratch scratch;
  for (std::size_t i = 0; i < steps; ++i) {
    const Matrix<float> out = head.step(cache, scratch);
    for (std::size_t g = 0; g < kGroup; ++g) {
      const auto expected = attention(head, cache, g, attended(head, cache, g));
      for (std::size_t j = 0; j < expected.size(); ++j)
        ASSERT_NEAR(out.row(g)[j], expected[j], tolerance) << "after " << cache.tokens();
    }
  }
}

/// A prompt, and steps over a refresh: 4 tokens of the sink, the indexed ones, 19 recent ones.
HeadCache decoded(const DecodeHead& head) {
  HeadCache cache = head.prefill(kPrompt, head.params);
  DecodeScratch scratch;
  for (std::size_t i = 0; i < kHorizon + 4; ++i) head.step(cache, scratch);
  EXPECT_EQ(recent_of(cache), kWindow + 4);
  return cache;
}

class Truncate : public testing::TestWithParam<Retriever> {};

TEST_P(Truncate, WhatIsLeftIsAttendedWhereverTheCutIs) {
  for (const bool int8_values : {false, true}) {
    DecodeParams params = given(GetParam());
    params.pinned = 5;
    params.int8_values = int8_values;
    const DecodeHead head = small_head(params);
    const HeadCache begin = decoded(head);
    const std::size_t n = begin.tokens(), first_recent = n - recent_of(begin);
    ASSERT_EQ(begin.pinned().size(), 5U);
    for (const std::size_t kept :
         {n, n - 1, first_recent, first_recent - 1, std::size_t{250}, begin.pinned()[2] + 1,
          begin.pinned()[2], std::size_t{kSink + 40}, std::size_t{kSink + 1}, kSink,
          std::size_t{kSink - 1}, std::size_t{1}}) {
      HeadCache cache = begin;
      cache.truncate(kept);
      ASSERT_EQ(cache.tokens(), kept);
      for (const std::size_t position : cache.pinned()) EXPECT_LT(position, kept);
      EXPECT_TRUE(cache.tail().empty());
      EXPECT_EQ(begin.tokens(), n);
      if (cache.indexed() < 40) {
        EXPECT_EQ(cache.plan().retriever, Retriever::everything);
      }
      if (cache.plan().retriever == GetParam() && GetParam() != Retriever::everything) {
        EXPECT_LE(cache.plan().stop.k, cache.indexed());
      }
      // A sketch or a projection index may miss a key.
      const bool is_complete =
          GetParam() != Retriever::sketch && GetParam() != Retriever::projection;
      if (kept >= kSink && (is_complete || cache.plan().retriever == Retriever::everything)) {
        expect_honest(head, cache, 3, int8_values ? 0.03 : 1e-4);
      } else {
        EXPECT_LT(head.decode(cache, 3), 1.3);
      }
    }
  }
}

TEST_P(Truncate, ThePlanIsMadeAnewAsItGrows) {
  const DecodeHead head = small_head(given(GetParam(), 8));
  HeadCache cache = decoded(head);
  for (const std::size_t kept : {200U, 3U}) {
    cache.truncate(kept);
    DecodeScratch scratch;
    for (std::size_t i = 0; i < 2 * kHorizon + kWindow + 2; ++i) head.step(cache, scratch);
    EXPECT_EQ(cache.plan().retriever, GetParam());
    EXPECT_EQ(cache.tail().empty(), GetParam() == Retriever::everything);
    EXPECT_GT(cache.indexed(), kHorizon);
  }
}

TEST_P(Truncate, AFileHoldsWhatIsLeft) {
  const test::TemporaryDirectory folder;
  const DecodeHead head = small_head(given(GetParam(), 8));
  const HeadCache begin = decoded(head);
  for (const std::size_t kept : {370U, 360U, 355U, 200U, 30U, 2U}) {
    HeadCache cache = begin;
    cache.truncate(kept);
    cache.save(folder / "head.ks");
    HeadCache loaded = HeadCache::load(folder / "head.ks");
    ASSERT_EQ(loaded.tokens(), kept);
    DecodeScratch scratch, other;
    // The warm start is not in a file: a complete search does not depend on it.
    if (GetParam() == Retriever::sketch || GetParam() == Retriever::projection) continue;
    for (std::size_t i = 0; i < 100; ++i)
      ASSERT_EQ(elements(head.step(loaded, other)), elements(head.step(cache, scratch)));
  }
}

INSTANTIATE_TEST_SUITE_P(Every, Truncate,
                         testing::Values(Retriever::everything, Retriever::none, Retriever::flat,
                                         Retriever::sketch, Retriever::projection),
                         [](const auto& each) { return std::string(to_string(each.param)); });

TEST(TruncateHead, StepsThatWereTakenBackLeaveNoTrace) {
  for (const Retriever retriever : {Retriever::everything, Retriever::none, Retriever::flat}) {
    const DecodeHead head = small_head(given(retriever, retriever == Retriever::none ? 8 : 0));
    HeadCache fresh = head.prefill(kPrompt, head.params), drafted = fresh;
    DecodeScratch scratch, other;
    for (std::size_t i = 0; i < 3 * kHorizon; ++i) {
      // Four tokens of another text are taken back, and then two; none makes a refresh due.
      const std::size_t before = drafted.tokens();
      for (const std::size_t taken_back : {4U, 2U}) {
        while (i < kHorizon - 5 && drafted.tokens() < before + taken_back)
          drafted.append(head.f32_values.row(i), head.f32_values.row(i + 1));
        drafted.truncate(before);
      }
      ASSERT_EQ(elements(head.step(drafted, other)), elements(head.step(fresh, scratch)));
    }
    EXPECT_EQ(drafted.indexed(), fresh.indexed());
    EXPECT_EQ(drafted.plan().retriever, fresh.plan().retriever);
  }
}

TEST(TruncateHead, QueriesOfTokensThatWereTakenBackArePlannedWithNoMore) {
  const DecodeHead head = small_head(given(Retriever::flat));
  HeadCache cache = head.prefill(kPrompt, head.params);
  const HeadCache begin = cache;
  DecodeScratch scratch;
  for (std::size_t i = 0; i < 60; ++i) head.step(cache, scratch);
  EXPECT_GT(cache.bytes(), begin.bytes());
  cache.truncate(kPrompt);
  EXPECT_EQ(cache.bytes(), begin.bytes());
}

TEST(TruncateHead, ATailGoesWithTheFirstTokenThatItStoodFor) {
  DecodeHead head = small_head();
  head.params.tail_vectors = 8;
  head.params.max_error = 0.3;
  for (const double max_error : {0.3, 0.95}) {
    head.params.max_error = max_error;
    HeadCache cache = decoded(head);
    ASSERT_FALSE(cache.tail().empty());
    const HeadPlan before = cache.plan();
    const std::size_t first_recent = cache.tokens() - recent_of(cache);
    cache.truncate(first_recent);
    EXPECT_FALSE(cache.tail().empty());
    EXPECT_EQ(cache.plan().retriever, before.retriever);
    cache.truncate(first_recent - 1);
    EXPECT_TRUE(cache.tail().empty());
    EXPECT_EQ(cache.plan().tail_vectors, 0U);
    const bool needs_no_tail = before.error_without_tail <= head.params.safety * max_error &&
                               before.retriever != Retriever::none;
    EXPECT_EQ(cache.plan().retriever, needs_no_tail ? before.retriever : Retriever::everything);
  }
}

TEST(TruncateHead, ASearchOfTheCallersOwnIsNotAskedForWhatIsGone) {
  DecodeParams params = given(Retriever::custom);
  params.index = [](const AnyMatrix& keys) -> SearchKeys {
    return [index = test::flat_index(keys.view(), {.threads = 1})](MatrixView<float> queries,
                                                                   std::size_t k, Hits& hits) {
      SearchScratch scratch;
      index.search(queries, {.k = k}, scratch, hits);
    };
  };
  const DecodeHead head = small_head(params);
  HeadCache cache = decoded(head);
  cache.truncate(cache.tokens() - 3);
  EXPECT_EQ(cache.plan().retriever, Retriever::custom);
  cache.truncate(250);
  EXPECT_EQ(cache.plan().retriever, Retriever::everything);
  expect_honest(head, cache, 3);
  DecodeScratch scratch;
  while (cache.tokens() < 250 + kHorizon + 20) head.step(cache, scratch);
  EXPECT_EQ(cache.plan().retriever, Retriever::custom);
}

TEST(TruncateHead, BadInputIsNamedAndChangesNothing) {
  const DecodeHead head = small_head(given(Retriever::flat));
  HeadCache cache = decoded(head), empty;
  const std::size_t n = cache.tokens();
  test::expect_error(kInvalid, {"tokens is 0"}, [&] { cache.truncate(0); });
  test::expect_error(kInvalid, {"tokens is 375, the head has 374"}, [&] { cache.truncate(n + 1); });
  test::expect_error(kInvalid, {"empty"}, [&] { empty.truncate(1); });
  EXPECT_EQ(cache.tokens(), n);
  cache.truncate(n);
  expect_honest(head, cache, 1);
}

TEST(TruncateHeads, AllAreCutOrNone) {
  const DecodeHead head = small_head(given(Retriever::flat));
  std::vector<HeadCache> heads(3, decoded(head));
  heads[1] = head.prefill(kPrompt, head.params);
  DecodePool pool(2);
  const std::vector<HeadCache*> all = {&heads[0], &heads[1], &heads[2]};
  const std::vector<std::size_t> kept = {373, 200, 30}, wrong = {200, 301, 200};
  const auto tokens = [&] {
    return std::vector{heads[0].tokens(), heads[1].tokens(), heads[2].tokens()};
  };
  test::expect_error(kInvalid, {"tokens is 301, the head has 300"},
                     [&] { truncate_heads(all, wrong, pool); });
  test::expect_error(kInvalid, {"tokens are of 2 heads, there are 3"},
                     [&] { truncate_heads(all, std::span(kept).first(2), pool); });
  const std::vector<HeadCache*> twice = {&heads[0], &heads[0], nullptr};
  test::expect_error(kInvalid, {"empty"}, [&] { truncate_heads(twice, kept, pool); });
  EXPECT_EQ(tokens(), (std::vector<std::size_t>{374, 300, 374}));
  truncate_heads(all, kept, pool);
  EXPECT_EQ(tokens(), kept);
  for (HeadCache& each : heads) expect_honest(head, each, 2);
}

}  // namespace
}  // namespace keyseek
