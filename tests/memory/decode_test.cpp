// Heads when memory runs out: all of a step, or nothing of it.
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "file/temporary_directory.hpp"
#include "memory/out_of_memory.hpp"
#include "support/decode_head.hpp"
#include "support/reference.hpp"

namespace keyseek {
namespace {

using test::DecodeHead;
using test::elements;
using test::run_out_everywhere;

constexpr std::size_t kPrompt = 120, kGroup = 2, kHorizon = 70, kTurn = 5;

/// Without a retriever, one that plans.
DecodeHead small_head(std::optional<Retriever> retriever, bool int8_values = false) {
  DecodeHead head = test::normal_head(kPrompt + 200, kGroup, Dtype::f16, 12, 10);
  head.params.shift = false;
  head.params.sink = 4;
  head.params.window = 8;
  head.params.horizon = kHorizon;
  head.params.least_indexed = 20;
  head.params.tail_vectors = 4;
  head.params.observed = 16;
  head.params.held_out = 8;
  head.params.int8_values = int8_values;
  head.params.max_error = 0.3;
  if (retriever) test::give(head.params, *retriever, 8);
  return head;
}

/// What a head gives over its next steps, and over a refresh.
std::vector<float> future_of(const DecodeHead& head, HeadCache& cache, std::size_t steps) {
  DecodeScratch scratch;
  std::vector<float> all;
  for (std::size_t i = 0; i < steps; ++i) {
    const std::vector<float> out = elements(head.step(cache, scratch));
    all.insert(all.end(), out.begin(), out.end());
  }
  return all;
}

/// What it would give.
std::vector<float> future(const DecodeHead& head, HeadCache cache, std::size_t steps) {
  return future_of(head, cache, steps);
}

struct AtWork {
  explicit AtWork(const HeadCache& begin) : cache(begin) {}

  HeadCache cache;
  DecodeScratch scratch;
  Matrix<float> out = Matrix<float>(kTurn * kGroup, 10);
  std::vector<float> lse = std::vector<float>(kGroup);
};

enum class Way { step, beside_static, append, attend, extend };

struct Case {
  std::optional<Retriever> retriever;
  Way way;
};

std::string name_of(const testing::TestParamInfo<Case>& info) {
  const char* const ways[] = {"step", "beside_static", "append", "attend", "extend"};
  return (info.param.retriever ? std::string(to_string(*info.param.retriever)) : "planned") + "_" +
         ways[static_cast<int>(info.param.way)];
}

class Steps : public testing::TestWithParam<Case> {
 protected:
  const DecodeHead head = small_head(GetParam().retriever);

  void work(AtWork& at) const {
    const std::size_t p = at.cache.tokens();
    const float *key = head.f32_keys.row(p), *value = head.f32_values.row(p);
    switch (GetParam().way) {
      case Way::step:
        return at.cache.step(head.at(p), key, value, at.scratch, at.out.data());
      case Way::beside_static:
        return at.cache.step_beside_static(head.at(p), key, value, at.scratch, at.out.data(),
                                           at.lse.data());
      case Way::append:
        return at.cache.append(key, value);
      case Way::attend:
        return at.cache.attend(head.at(p), at.scratch, at.out.data());
      case Way::extend:
        return at.cache.extend(head.queries.view().slice(p * kGroup, kTurn * kGroup),
                               head.f32_keys.view().slice(p, kTurn),
                               head.f32_values.view().slice(p, kTurn), at.scratch, at.out.data());
    }
  }

  /// From a head that has taken `taken` tokens, with a fresh scratch or a used one.
  void run_out(std::size_t taken, bool used) const {
    HeadCache begin = head.prefill(kPrompt, head.params);
    DecodeScratch scratch;
    for (std::size_t i = 0; i < taken; ++i) head.step(begin, scratch);
    AtWork fine(begin);
    work(fine);
    run_out_everywhere(
        [&] {
          AtWork at(begin);
          if (used) {  // by a head of another shape
            const DecodeHead other = test::normal_head(40, 1, Dtype::f32, 6, 5);
            HeadCache none = other.prefill(30, other.params);
            other.step(none, at.scratch);
          }
          return at;
        },
        [&](AtWork& at) { work(at); },
        [&](AtWork& at, bool threw) {
          if (threw) {
            EXPECT_EQ(at.cache.tokens(), begin.tokens());
            EXPECT_EQ(at.cache.stats().total_us, begin.stats().total_us);
            work(at);  // in the same scratch
          }
          EXPECT_EQ(elements(at.out), elements(fine.out));
          EXPECT_EQ(at.lse, fine.lse);
          EXPECT_EQ(future(head, at.cache, 3), future(head, fine.cache, 3));
        });
  }
};

TEST_P(Steps, AreDoneOrNot) {
  run_out(0, false);
  run_out(3, true);
}

TEST_P(Steps, AreDoneOrNotWhenARefreshIsDue) {
  if (GetParam().way == Way::attend) return;  // refreshes nothing
  run_out(kHorizon, false);
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const Retriever retriever : {Retriever::everything, Retriever::none, Retriever::flat,
                                    Retriever::sketch, Retriever::projection})
    all.push_back({retriever, Way::step});
  for (const Way way : {Way::beside_static, Way::append, Way::attend, Way::extend})
    all.push_back({Retriever::flat, way});
  all.push_back({std::nullopt, Way::step});
  return all;
}
INSTANTIATE_TEST_SUITE_P(Every, Steps, testing::ValuesIn(cases()), name_of);

class Heads : public testing::TestWithParam<std::optional<Retriever>> {};

TEST_P(Heads, ARefreshThatFailedMovedNothing) {
  for (const bool int8_values : {false, true}) {
    const DecodeHead head = small_head(GetParam(), int8_values);
    HeadCache begin = head.prefill(kPrompt, head.params);
    DecodeScratch scratch;
    for (std::size_t i = 0; i < 66; ++i) head.step(begin, scratch);
    const std::vector<float> expected = future(head, begin, 2);
    run_out_everywhere([&] { return begin; },
                       [](HeadCache& cache) { cache.refresh({.threads = 1}); },
                       [&](HeadCache& cache, bool threw) {
                         EXPECT_EQ(cache.tokens(), begin.tokens());
                         if (!threw) return;
                         EXPECT_EQ(cache.indexed(), begin.indexed());
                         EXPECT_EQ(cache.bytes(), begin.bytes());
                         EXPECT_EQ(future(head, cache, 2), expected);
                       });
  }
}

TEST_P(Heads, ARefreshAsideIsBegunAndAdoptedOrNot) {
  if (GetParam() == Retriever::sketch || GetParam() == Retriever::projection) return;  // take long
  DecodeHead head = small_head(GetParam());
  head.params.refresh_delay = 2;
  HeadCache due = head.prefill(kPrompt, head.params);
  DecodeScratch scratch;
  for (std::size_t i = 0; i < kHorizon; ++i) head.step(due, scratch);
  const std::vector<float> expected = future(head, due, 4);
  for (const std::size_t begun : {0U, 2U}) {
    const std::size_t p = due.tokens() + begun;
    run_out_everywhere(
        [&] {
          AtWork at(due);
          future_of(head, at.cache, begun);
          return at;
        },
        [&](AtWork& at) {
          at.cache.step(head.at(p), head.f32_keys.row(p), head.f32_values.row(p), at.scratch,
                        at.out.data());
        },
        [&](AtWork& at, bool threw) {
          EXPECT_EQ(at.cache.tokens(), p + (threw ? 0 : 1));
          const std::vector<float> rest =
              future(head, at.cache, due.tokens() + 4 - at.cache.tokens());
          const auto left = static_cast<std::ptrdiff_t>(rest.size());
          EXPECT_EQ(rest, std::vector<float>(expected.end() - left, expected.end()));
        });
  }
}

TEST_P(Heads, ATruncationThatFailedTookNothingBack) {
  DecodeHead head = small_head(GetParam(), true);
  head.params.pinned = 5;
  HeadCache begin = head.prefill(kPrompt, head.params);
  DecodeScratch scratch;
  for (std::size_t i = 0; i < 66; ++i) head.step(begin, scratch);
  const std::vector<float> expected = future(head, begin, 2);
  for (const std::size_t left : {100U, 60U}) {  // recent tokens and the sink need no memory
    run_out_everywhere([&] { return begin; }, [&](HeadCache& cache) { cache.truncate(left); },
                       [&](HeadCache& cache, bool threw) {
                         EXPECT_EQ(cache.tokens(), threw ? begin.tokens() : left);
                         if (!threw) return;
                         EXPECT_EQ(cache.bytes(), begin.bytes());
                         EXPECT_EQ(future(head, cache, 2), expected);
                       });
  }
}

TEST_P(Heads, APrefillThatFailedCanBeTriedAgain) {
  DecodeHead head = small_head(GetParam());
  head.params.pinned = 5;
  const std::vector<float> expected = future(head, head.prefill(kPrompt, head.params), 2);
  run_out_everywhere([] { return 0; },
                     [&](int&) { static_cast<void>(head.prefill(kPrompt, head.params)); },
                     [](int&, bool) {});
  EXPECT_EQ(future(head, head.prefill(kPrompt, head.params), 2), expected);
}

TEST_P(Heads, WhatWasSavedAfterAFailureIsWhole) {
  const test::TemporaryDirectory folder;
  const auto path = folder / "head.ks";
  const DecodeHead head = small_head(GetParam());
  const HeadCache begin = head.prefill(kPrompt, head.params);
  const std::size_t p = kPrompt;
  run_out_everywhere([&] { return AtWork(begin); },
                     [&](AtWork& at) {
                       at.cache.step(head.at(p), head.f32_keys.row(p), head.f32_values.row(p),
                                     at.scratch, at.out.data());
                     },
                     [&](AtWork& at, bool) {
                       at.cache.save(path);
                       const HeadCache loaded = HeadCache::load(path);
                       EXPECT_EQ(loaded.tokens(), at.cache.tokens());
                       EXPECT_EQ(future(head, loaded, 1).size(), kGroup * 10);
                     });
}

TEST_P(Heads, ASaveThatFailedLeavesTheOldFileAndALoadCanBeTriedAgain) {
  const test::TemporaryDirectory folder;
  const auto path = folder / "head.ks";
  const DecodeHead head = small_head(GetParam());
  const HeadCache begin = head.prefill(kPrompt, head.params);
  HeadCache later = begin;
  DecodeScratch scratch;
  head.step(later, scratch);
  const std::vector<float> expected = future(head, begin, 2);
  run_out_everywhere(
      [&] {
        begin.save(path);
        return 0;
      },
      [&](int&) { later.save(path); },
      [&](int&, bool threw) {
        if (threw) {
          EXPECT_EQ(future(head, HeadCache::load(path), 2), expected);
        }
        EXPECT_EQ(folder.names().size(), 1U);
      });
  begin.save(path);
  run_out_everywhere(
      [] { return HeadCache(); }, [&](HeadCache& cache) { cache = HeadCache::load(path); },
      [&](HeadCache& cache, bool threw) { EXPECT_EQ(cache.group(), threw ? 0U : kGroup); });
}

INSTANTIATE_TEST_SUITE_P(Every, Heads,
                         testing::Values(Retriever::everything, Retriever::none, Retriever::flat,
                                         Retriever::sketch, Retriever::projection, std::nullopt),
                         [](const auto& each) {
                           return each.param ? std::string(to_string(*each.param))
                                             : std::string("planned");
                         });

/// Heads of a layer with a pool, and room for a step.
struct Layer {
  Layer(const std::vector<HeadCache>& begin, int threads) : heads(begin), pool(threads) {}

  std::vector<HeadCache> heads;
  DecodePool pool;
  Matrix<float> out = Matrix<float>(3 * kGroup, 10);

  [[nodiscard]] std::vector<HeadCache*> pointers() { return {&heads[0], &heads[1], &heads[2]}; }
};

TEST(ManyHeads, AllTakeAStepOrNone) {
  const DecodeHead head = small_head(Retriever::flat);
  const std::vector<HeadCache> begin(3, head.prefill(kPrompt, head.params));
  Matrix<float> queries(3 * kGroup, 12), keys(3, 12), values(3, 10);
  for (std::size_t h = 0; h < 3; ++h) {
    for (std::size_t g = 0; g < kGroup; ++g)
      std::copy_n(head.at(kPrompt).row(g), 12, queries.row(h * kGroup + g));
    std::copy_n(head.f32_keys.row(kPrompt), 12, keys.row(h));
    std::copy_n(head.f32_values.row(kPrompt), 10, values.row(h));
  }
  HeadCache alone = begin[0];
  DecodeScratch scratch;
  head.step(alone, scratch);
  const std::vector<float> expected = future(head, alone, 2);
  const auto step = [&](Layer& layer) {
    step_heads(layer.pointers(), queries, keys, values, layer.pool, layer.out.data());
  };
  const auto apart = [&](Layer& layer) {
    append_heads(layer.pointers(), keys, values, layer.pool);
    attend_heads(layer.pointers(), queries, layer.pool, layer.out.data());
  };
  for (const int threads : {1, 3}) {
    const auto prepare = [&] { return Layer(begin, threads); };
    run_out_everywhere(prepare, step, [&](Layer& layer, bool threw) {
      if (threw) {
        for (const HeadCache& each : layer.heads) EXPECT_EQ(each.tokens(), kPrompt);
        step(layer);
      }
      for (const HeadCache& each : layer.heads) EXPECT_EQ(future(head, each, 2), expected);
    });
    run_out_everywhere(prepare, apart, [&](Layer& layer, bool threw) {
      const std::size_t tokens = layer.heads[0].tokens();
      for (const HeadCache& each : layer.heads) EXPECT_EQ(each.tokens(), tokens);
      if (threw && tokens == kPrompt) append_heads(layer.pointers(), keys, values, layer.pool);
      if (threw) attend_heads(layer.pointers(), queries, layer.pool, layer.out.data());
      for (const HeadCache& each : layer.heads) EXPECT_EQ(future(head, each, 2), expected);
    });
  }
}

TEST(ManyHeads, AllTakeATurnOrNoneAndAllGiveItBackOrNone) {
  const DecodeHead head = small_head(Retriever::flat);
  HeadCache due = head.prefill(kPrompt, head.params);
  DecodeScratch scratch;
  for (std::size_t i = 0; i < kHorizon; ++i) head.step(due, scratch);
  const std::vector<HeadCache> begin(3, due);
  const std::size_t n = due.tokens();
  const auto thrice = [&](const Matrix<float>& from, std::size_t each) {
    Matrix<float> rows(3 * kTurn * each, from.cols());
    for (std::size_t h = 0; h < 3; ++h)
      std::copy_n(from.row(n * each), kTurn * each * from.cols(), rows.row(h * kTurn * each));
    return rows;
  };
  const Matrix<float> keys = thrice(head.f32_keys, 1), values = thrice(head.f32_values, 1),
                      queries = thrice(head.queries, kGroup);
  const auto turn = [&](Layer& layer) {
    append_heads(layer.pointers(), keys, values, layer.pool, queries);
  };
  HeadCache alone = due;
  alone.append(keys.view().slice(0, kTurn), values.view().slice(0, kTurn),
               queries.view().slice(0, kTurn * kGroup));
  const std::vector<float> expected = future(head, alone, 2);
  for (const int threads : {1, 3}) {
    run_out_everywhere([&] { return Layer(begin, threads); }, turn,
                       [&](Layer& layer, bool threw) {
                         if (threw) {
                           for (const HeadCache& each : layer.heads) EXPECT_EQ(each.tokens(), n);
                           turn(layer);
                         }
                         for (const HeadCache& each : layer.heads)
                           EXPECT_EQ(future(head, each, 2), expected);
                       });
    Matrix<float> out(3 * kTurn * kGroup, 10);
    const auto attended = [&](Layer& layer) {
      extend_heads(layer.pointers(), queries, keys, values, layer.pool, out.data());
    };
    run_out_everywhere([&] { return Layer(begin, threads); }, attended,
                       [&](Layer& layer, bool threw) {
                         if (threw) {
                           for (const HeadCache& each : layer.heads) EXPECT_EQ(each.tokens(), n);
                           attended(layer);
                         }
                         for (const HeadCache& each : layer.heads)
                           EXPECT_EQ(future(head, each, 2), expected);
                       });
    const std::vector<std::size_t> left = {n - 1, 100, 2};
    run_out_everywhere([&] { return Layer(begin, threads); },
                       [&](Layer& layer) { truncate_heads(layer.pointers(), left, layer.pool); },
                       [&](Layer& layer, bool threw) {
                         for (std::size_t i = 0; i < 3; ++i)
                           EXPECT_EQ(layer.heads[i].tokens(), threw ? n : left[i]);
                       });
  }
}

}  // namespace
}  // namespace keyseek
