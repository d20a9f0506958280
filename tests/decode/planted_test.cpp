// What a plan promises beyond a mean: about queries whose answer hangs on one token, and about a
// share of all queries.
#include "decode/planted.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "decode/evidence.hpp"
#include "keyseek/score.hpp"
#include "support/decode_head.hpp"

namespace keyseek {
namespace {

using test::DecodeHead;

constexpr std::size_t kPrompt = 7168;  // of the sample

const DecodeHead& sample(std::size_t layer) {
  static const std::array<DecodeHead, 2> heads = {test::sample_head(2), test::sample_head(15)};
  return heads[layer == 2 ? 0 : 1];
}

DecodeParams promising(const DecodeHead& head, double max_error, double planted,
                       double confidence = 0) {
  return test::with(head.params, [&](DecodeParams& p) {
    p.max_error = max_error;
    p.max_planted_error = planted;
    p.confidence = confidence;
  });
}

/// The newest 2,048 positions of the sample's prompt.
struct Asked {
  const DecodeHead& head;
  std::vector<std::size_t> positions;
  PlanInput input;

  explicit Asked(const DecodeHead& h) : head(h) {
    for (std::size_t at = kPrompt - 2048; at < kPrompt; ++at) positions.push_back(at);
    const AnyMatrixView keys = head.keys.view(), values = head.values.view();
    const std::size_t indexed = kPrompt - 128 - 512;
    input.tokens.sink = {keys.slice(0, 128), {values.slice(0, 128)}};
    input.tokens.indexed = {keys.slice(128, indexed), {values.slice(128, indexed)}};
    input.tokens.recent = {keys.slice(128 + indexed, 512), {values.slice(128 + indexed, 512)}};
    input.queries = head.queries.view().slice(positions.front() * head.group, 2048 * head.group);
    input.positions = positions;
    input.group = head.group;
  }
};

/// Share of each planted query's attention that its best indexed key has.
std::vector<double> shares(const Observations& seen) {
  std::vector<double> all;
  for (std::size_t q = 0; q < seen.queries.rows(); ++q) {
    const double rest = seen.rest.lse[q], exact = seen.exact.lse[q];
    const double total = rest + std::log1p(std::exp(exact - rest));
    all.push_back(std::exp(seen.logits.of(seen.top_scores.row(q)[0]) - total));
  }
  return all;
}

TEST(Planted, QueriesHangOnOneTokenEach) {
  for (const std::size_t layer : {2U, 15U}) {
    const Asked asked(sample(layer));
    const Evidence seen = gather_evidence(asked.input, asked.head.params, 64, {.threads = 1});
    const std::size_t group = asked.head.group;
    ASSERT_EQ(seen.planted.queries.rows(), 24 * group);
    std::vector<double> planted = shares(seen.planted_seen), held = shares(seen.held_seen);
    std::sort(planted.begin(), planted.end());
    std::sort(held.begin(), held.end());
    EXPECT_GT(planted[planted.size() / 2], 0.3) << "layer " << layer;
    EXPECT_GT(planted[planted.size() / 2], 2 * held[held.size() / 2]) << "layer " << layer;
    std::vector<Id> wanted;
    for (std::size_t q = 0; q < 24 * group; ++q)
      wanted.push_back(seen.planted_seen.top_ids.row(q)[0]);
    std::sort(wanted.begin(), wanted.end());
    EXPECT_GE(std::unique(wanted.begin(), wanted.end()) - wanted.begin(), 16 * group);
  }
}

TEST(Planted, APlanKeepsTheirError) {
  const DecodeHead& head = sample(2);
  const auto plan = [&](double planted) {
    return head.prefill(kPrompt, promising(head, 0.1, planted)).plan();
  };
  const HeadPlan any = plan(1), some = plan(0.15);
  ASSERT_GT(any.planted_error, 0.15);  // or there is nothing to see
  EXPECT_LE(some.planted_error, 0.15);
  EXPECT_LE(some.expected_error, 0.08);
  EXPECT_GT(some.stop.k, any.stop.k);
  // Everything is attended where nothing keeps it.
  EXPECT_EQ(plan(1e-6).retriever, Retriever::everything);
}

TEST(Planted, ATailAloneAnswersNone) {
  // A head that is content with a tail, as far as its own queries say.
  const DecodeHead& head = sample(2);
  const auto plan = [&](double planted) {
    const DecodeParams params =
        test::with(promising(head, 0.1, planted), [](DecodeParams& p) { p.least_k = 0; });
    return head.prefill(2500, params).plan();
  };
  const HeadPlan any = plan(1);
  ASSERT_EQ(any.retriever, Retriever::none);
  EXPECT_GT(any.planted_error, 0.3);
  EXPECT_NE(plan(0.25).retriever, Retriever::none);
  EXPECT_LE(plan(0.25).planted_error, 0.25);
}

/// Share of the errors of decoding that are not above max_error.
double share_kept(const DecodeHead& head, HeadCache& cache, double max_error) {
  DecodeScratch scratch;
  std::size_t kept = 0, all = 0;
  for (std::size_t s = 0; s < 512; ++s) {
    const std::size_t position = cache.tokens();
    const Matrix<float> out = head.step(cache, scratch);
    if (s % 4 != 0) continue;
    for (const double error : head.errors(position, out)) {
      kept += error <= max_error ? 1 : 0;
      ++all;
    }
  }
  return static_cast<double>(kept) / static_cast<double>(all);
}

TEST(Confidence, AShareOfTheStepsKeepsTheError) {
  const DecodeHead& head = sample(2);
  HeadCache mean = head.prefill(kPrompt, promising(head, 0.02, 1));
  HeadCache most = head.prefill(kPrompt, promising(head, 0.02, 1, 0.95));
  EXPECT_GT(most.plan().stop.k, mean.plan().stop.k);
  EXPECT_LE(most.plan().expected_error, 0.8 * 0.02);
  EXPECT_LT(share_kept(head, mean, 0.02), 0.95);
  EXPECT_GE(share_kept(head, most, 0.02), 0.95);
}

}  // namespace
}  // namespace keyseek
