// The cache of one head: what it attends to, what it keeps, and what it refuses.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>

#include "file/temporary_directory.hpp"
#include "keyseek/index.hpp"
#include "keyseek/score.hpp"
#include "support/decode_head.hpp"
#include "support/indexes.hpp"

namespace keyseek {
namespace {

using test::DecodeHead;
using test::elements;
using test::expect_error;
using test::normal_head;

/// A few tokens of everything, so that short sequences cross each border.
DecodeParams small(const DecodeHead& head, std::size_t horizon = 16) {
  DecodeParams params = head.params;
  params.sink = 8;
  params.window = 12;
  params.horizon = horizon;
  return params;
}

/// A head of 3,000 tokens of the sample whose plan is flat, with short horizons.
struct FlatHead {
  // So few are indexed that no sketch is made.
  static constexpr std::size_t kPrompt = 2000, kHorizon = 64;
  DecodeHead head = test::sample_head(2);
  DecodeParams params = test::with(head.params, [](DecodeParams& p) {
    p.max_error = 0.02;
    p.horizon = kHorizon;
  });
  HeadCache cache = head.prefill(kPrompt, params);
};
const FlatHead& flat_head() {
  static const FlatHead head;
  return head;
}

TEST(HeadCache, AShortPromptIsAttendedInFull) {
  struct Case {
    Dtype dtype;
    double bound;  // against attention over what was given, before it was rounded
  };
  for (const auto& [dtype, bound] :
       {Case{Dtype::f32, 1e-5}, Case{Dtype::f16, 1e-3}, Case{Dtype::bf16, 1e-2}}) {
    for (const std::size_t group : {1U, 3U}) {
      const DecodeHead head = normal_head(260, group, dtype);
      HeadCache cache = head.prefill(200, small(head));
      EXPECT_EQ(cache.plan().retriever, Retriever::everything);
      DecodeScratch scratch;
      while (cache.tokens() < 260) {  // three refreshes
        const std::size_t position = cache.tokens();
        const Matrix<float> out = head.step(cache, scratch);
        const auto ids = test::range(0, position + 1);
        for (std::size_t g = 0; g < group; ++g) {
          const float* query = head.at(position).row(g);
          const auto stored = test::reference(query, head.keys.view(), {head.values.view()}, ids,
                                              double{head.params.scale});
          EXPECT_LT(test::relative_error(out.row(g), stored.out), 1e-5) << "token " << position;
          const auto given =
              test::reference(query, test::any(head.f32_keys), {test::any(head.f32_values)}, ids,
                              double{head.params.scale});
          EXPECT_LT(test::relative_error(out.row(g), given.out), bound) << "token " << position;
        }
        EXPECT_EQ(cache.stats().exact, position + 1);
        EXPECT_EQ(cache.stats().retrieved, 0U);
        EXPECT_EQ(cache.stats().bytes_read, cache.indexed() * (32 + 24) * size_of(dtype));
        EXPECT_EQ(cache.full_bytes(), cache.stats().bytes_read);
      }
      EXPECT_EQ(cache.indexed(), 200U - 8 - 12 + 3 * 16);
    }
  }
}

TEST(HeadCache, TheSmallestPromptsWork) {
  for (const std::size_t n : {1U, 7U, 8U, 9U, 20U, 21U}) {
    for (const bool asked : {false, true}) {
      for (const std::size_t sink : {0U, 8U, 1000U}) {
        const DecodeHead head = normal_head(n + 40, 2);
        DecodeParams params = small(head);
        params.sink = sink;
        params.window = 1;
        HeadCache cache = head.prefill(n, asked ? n : 0, params);
        EXPECT_EQ(cache.tokens(), n);
        EXPECT_EQ(cache.plan().retriever, Retriever::everything);
        EXPECT_LT(head.decode(cache, 40), 1e-5) << "n " << n << " sink " << sink;
        EXPECT_EQ(cache.tokens(), n + 40);
      }
    }
  }
}

TEST(HeadCache, AWindowOfAnySizeLeavesNothingToIndex) {
  const DecodeHead head = normal_head(90, 2);
  for (const std::size_t window : {std::size_t{60}, std::size_t{1000}, SIZE_MAX}) {
    DecodeParams params = small(head);
    params.window = window;
    HeadCache cache = head.prefill(50, params);
    EXPECT_LT(head.decode(cache, 40), 1e-5);
    EXPECT_EQ(cache.indexed(), window == 60 ? 16U : 0U);
    // No refresh has forgotten the queries.
    EXPECT_EQ(cache.bytes() > 90U * (32 + 24) * 4 + 2 * 32 * 4 * 39, window > 60);
  }
}

TEST(HeadCache, WithoutQueriesOfThePromptEverythingIsAttended) {
  const FlatHead& flat = flat_head();
  ASSERT_EQ(flat.cache.plan().retriever, Retriever::flat);
  for (const std::size_t positions : {0U, 1U, 63U}) {
    HeadCache cache = flat.head.prefill(flat.kPrompt, positions, flat.params);
    EXPECT_EQ(cache.plan().retriever, Retriever::everything);
    EXPECT_EQ(cache.indexed(), flat.kPrompt - 128 - 512);
    EXPECT_LT(flat.head.decode(cache, 5), 1e-5);
  }
}

TEST(HeadCache, RefreshMovesTokensIntoTheIndex) {
  const FlatHead& flat = flat_head();
  HeadCache cache = flat.cache;
  DecodeScratch scratch;
  std::size_t indexed = flat.kPrompt - 128 - 512, refreshes = 0, retrieving = 0;
  EXPECT_EQ(cache.indexed(), indexed);
  double error = 0;
  constexpr std::size_t kSteps = 3 * FlatHead::kHorizon + 10;
  for (std::size_t s = 0; s < kSteps; ++s) {
    const std::size_t position = cache.tokens();
    const Matrix<float> out = flat.head.step(cache, scratch);
    for (const double e : flat.head.errors(position, out)) error += e;
    if (s > 0 && s % flat.kHorizon == 0) {
      indexed += flat.kHorizon;
      ++refreshes;
    }
    ASSERT_EQ(cache.indexed(), indexed) << "step " << s;
    if (cache.plan().retriever == Retriever::everything) continue;
    const std::size_t recent = 512 + s % flat.kHorizon + 1;
    EXPECT_EQ(cache.stats().exact, 128 + recent);
    EXPECT_EQ(cache.tokens(), 128 + indexed + recent);
    EXPECT_EQ(cache.stats().retrieved, cache.plan().stop.k * 3);
    if (cache.plan().retriever != Retriever::flat) continue;
    ++retrieving;
    EXPECT_EQ(cache.stats().scanned, indexed);
    EXPECT_GE(cache.stats().bytes_read, indexed * 64 + cache.plan().stop.k * 3 * 64 * 2);
  }
  EXPECT_EQ(refreshes, 3U);
  EXPECT_GE(retrieving, flat.kHorizon);
  EXPECT_LE(error / (3 * kSteps), flat.params.max_error);
}

TEST(HeadCache, AStepIsTheMergeOfItsParts) {
  const FlatHead& flat = flat_head();
  HeadCache cache = flat.cache;
  DecodeScratch scratch;
  ASSERT_FALSE(cache.tail().empty());
  for (std::size_t s = 0; s < 20; ++s) {
    const std::size_t position = cache.tokens(), first_recent = 128 + cache.indexed();
    const AnyMatrixView keys = flat.head.keys.view(), values = flat.head.values.view();
    const auto queries = flat.head.at(position);
    const float scale = flat.params.scale;
    Hits hits;
    cache.retrieve(queries, cache.plan().stop.k, scratch, hits);
    AttendScratch attending;
    Partial all, part, summary;
    attend(queries, keys.slice(0, 128), {values.slice(0, 128)}, scale, attending, all);
    const std::size_t recent = position + 1 - first_recent;
    attend(queries, keys.slice(first_recent, recent), {values.slice(first_recent, recent)}, scale,
           attending, part);
    merge(part, all);
    attend_hits(hits, {values}, scale, attending, part);
    attend_tail(queries, hits, part, cache.tail(), attending, summary);
    merge(part, all);
    merge(summary, all);
    const Matrix<float> out = flat.head.step(cache, scratch);
    for (std::size_t g = 0; g < 3; ++g)
      EXPECT_LT(test::relative_error(out.row(g), all.out.row(g), 64), 1e-5) << "step " << s;
  }
}

TEST(HeadCache, RefreshMayBeAskedFor) {
  const FlatHead& flat = flat_head();
  HeadCache cache = flat.head.prefill(
      flat.kPrompt, test::with(flat.params, [](DecodeParams& p) { p.horizon = 1000; }));
  EXPECT_LE(flat.head.decode(cache, 100, 4), 0.02);
  const std::size_t before = cache.indexed();
  // One position in 3 is remembered: too few to plan with, so it waits.
  cache.refresh({.threads = 1});
  EXPECT_EQ(cache.indexed(), before);
  EXPECT_LE(flat.head.decode(cache, 100, 4), 0.02);
  cache.refresh({.threads = 1});
  EXPECT_EQ(cache.indexed(), before + 200);
  EXPECT_EQ(cache.tokens(), flat.kPrompt + 200);
  EXPECT_NE(cache.plan().retriever, Retriever::everything);
  cache.refresh();  // there is nothing to move
  EXPECT_EQ(cache.indexed(), before + 200);
  EXPECT_EQ(cache.tokens(), flat.kPrompt + 200);
  EXPECT_LE(flat.head.decode(cache, 10), 0.05);
}

TEST(HeadCache, CopiesGoSeparateWays) {
  const FlatHead& flat = flat_head();
  HeadCache one = flat.cache, two = flat.cache, same = flat.cache;
  DecodeScratch scratch;
  // `two` decodes other tokens, past a refresh; `one` must not notice.
  Matrix<float> out(3, 64);
  for (std::size_t s = 0; s < 70; ++s)
    two.step(flat.head.at(s), flat.head.f32_keys.row(s), flat.head.f32_values.row(s), scratch,
             out.data());
  DecodeScratch another;
  for (std::size_t s = 0; s < 70; ++s) {
    const Matrix<float> a = flat.head.step(one, scratch), b = flat.head.step(same, another);
    ASSERT_EQ(elements(a), elements(b)) << "step " << s;
  }
  EXPECT_EQ(flat.cache.tokens(), flat.kPrompt);
  EXPECT_EQ(flat.cache.indexed() + flat.kHorizon, one.indexed());
}

TEST(HeadCache, RetrieveNamesPositions) {
  const FlatHead& flat = flat_head();
  HeadCache cache = flat.cache;
  DecodeScratch scratch;
  for (const bool refreshed : {false, true}) {
    if (refreshed) (void)flat.head.decode(cache, flat.kHorizon + 1);
    ASSERT_EQ(cache.plan().retriever, Retriever::flat);
    const auto queries = flat.head.at(cache.tokens());
    for (const std::size_t k : {std::size_t{1}, std::size_t{40}, std::size_t{100000}}) {
      Hits hits;
      cache.retrieve(queries, k, scratch, hits);
      const std::size_t found = std::min(k, cache.indexed());
      const auto truth =
          test::brute_force(flat.head.keys.view().slice(128, cache.indexed()), queries, found);
      std::size_t right = 0;
      for (std::size_t g = 0; g < 3; ++g) {
        ASSERT_EQ(hits.count[g], found);
        std::set<Id> ids;
        for (std::size_t r = 0; r < found; ++r) {
          const Id id = hits.row_ids(g)[r];
          ASSERT_GE(id, 128U);
          ASSERT_LT(id, 128 + cache.indexed());
          ASSERT_EQ(hits.row_scores(g)[r],
                    inner_product(flat.head.keys.view(), id, queries.row(g)));
          ids.insert(id);
        }
        EXPECT_EQ(ids.size(), found);
        for (std::size_t r = 0; r < found; ++r) right += ids.count(truth.ids.row(g)[r] + 128);
      }
      EXPECT_GE(static_cast<double>(right), 0.99 * 3 * static_cast<double>(found));
    }
  }
}

TEST(HeadCache, BytesAreAccountedFor) {
  const DecodeHead plain = normal_head(300, 2, Dtype::f16);
  HeadCache everything = plain.prefill(250, small(plain, 64));
  EXPECT_EQ(everything.bytes(), 250U * (32 + 24) * 2);
  (void)plain.decode(everything, 50);
  // And 50 positions' queries for the next refresh.
  EXPECT_EQ(everything.bytes(), 300U * (32 + 24) * 2 + 50 * (2 * 32 * 4 + sizeof(std::size_t)));

  const FlatHead& flat = flat_head();
  const std::size_t indexed = flat.cache.indexed();
  const auto index = test::flat_index(flat.head.keys.view().slice(128, indexed));
  EXPECT_GE(index.bytes(), indexed * 64 * 3);
  EXPECT_EQ(flat.cache.bytes(),
            index.bytes() + indexed * 64 * 2 + 640 * 64 * 2 * 2 + flat.cache.tail().bytes());
}

}  // namespace
}  // namespace keyseek
