// Refreshes that are planned beside the steps: adopted at a fixed token, whoever plans, and when.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include "file/temporary_directory.hpp"
#include "keyseek/decode_pool.hpp"
#include "keyseek/error.hpp"
#include "support/decode_head.hpp"
#include "support/reference.hpp"

namespace keyseek {
namespace {

using test::DecodeHead;
using test::elements;

constexpr std::size_t kPrompt = 300, kHorizon = 70, kWindow = 16, kDelay = 9, kSink = 4;
// Tokens that a head has when its first refresh begins, and when it is adopted.
constexpr std::size_t kBegins = kPrompt + kHorizon, kAdopts = kBegins + kDelay;

DecodeHead small_head(std::optional<Retriever> retriever, std::size_t delay = kDelay) {
  DecodeHead head = test::normal_head(kPrompt + 400, 2, Dtype::f16);
  head.params.shift = false;
  head.params.sink = kSink;
  head.params.window = kWindow;
  head.params.horizon = kHorizon;
  head.params.refresh_delay = delay;
  head.params.least_indexed = 40;
  head.params.tail_vectors = 8;
  head.params.max_error = 0.3;
  if (retriever) test::give(head.params, *retriever, 20);
  return head;
}

/// Steps until the head has so many tokens; all outputs.
std::vector<float> step_to(const DecodeHead& head, HeadCache& cache, std::size_t tokens) {
  DecodeScratch scratch;
  std::vector<float> all;
  while (cache.tokens() < tokens) {
    const std::vector<float> out = elements(head.step(cache, scratch));
    all.insert(all.end(), out.begin(), out.end());
  }
  return all;
}

/// The same, of two equal heads on the threads of a pool; the outputs of the second.
std::vector<float> step_both_to(const DecodeHead& head, std::vector<HeadCache>& heads,
                                std::size_t tokens, DecodePool& pool,
                                std::chrono::microseconds pause = {}) {
  const std::vector<HeadCache*> both = {&heads[0], &heads[1]};
  std::vector<float> all;
  while (heads[0].tokens() < tokens) {
    const std::size_t p = heads[0].tokens();
    Matrix<float> queries(4, 32), keys(2, 32), values(2, 24), out(4, 24);
    for (std::size_t h = 0; h < 2; ++h) {
      std::copy_n(head.at(p).row(0), 2 * 32, queries.row(2 * h));
      std::copy_n(head.f32_keys.row(p), 32, keys.row(h));
      std::copy_n(head.f32_values.row(p), 24, values.row(h));
    }
    step_heads(both, queries, keys, values, pool, out.data());
    all.insert(all.end(), out.row(2), out.row(4 - 1) + 24);
    if (pause.count() > 0) std::this_thread::sleep_for(pause);
  }
  return all;
}

/// A search of the caller's own, which makes what `before` lets it make.
IndexKeys searched(std::function<void()> before) {
  return [before = std::move(before)](const AnyMatrix& keys) -> SearchKeys {
    before();
    auto rows = std::make_shared<Matrix<float>>(to_f32(keys.view()));
    return [rows](MatrixView<float> queries, std::size_t k, Hits& hits) {
      std::vector<std::vector<Id>> best;
      hits.group = queries.rows;
      hits.k = k;
      for (std::size_t g = 0; g < queries.rows; ++g) {
        std::vector<std::pair<float, Id>> all;
        for (std::size_t i = 0; i < rows->rows(); ++i) {
          double dot = 0;
          for (std::size_t j = 0; j < queries.cols; ++j)
            dot += double{queries.row(g)[j]} * double{rows->row(i)[j]};
          all.emplace_back(-static_cast<float>(dot), static_cast<Id>(i));
        }
        std::sort(all.begin(), all.end());
        hits.count.push_back(k);
        for (std::size_t r = 0; r < k; ++r) {
          hits.ids.push_back(all[r].second);
          hits.scores.push_back(-all[r].first);
        }
      }
    };
  };
}

class Aside : public testing::TestWithParam<std::optional<Retriever>> {};

TEST_P(Aside, IsAdoptedAfterItsDelayAndIsWhatWasPlannedThen) {
  const DecodeHead head = small_head(GetParam()), at_once = small_head(GetParam(), 0);
  HeadCache cache = head.prefill(kPrompt, head.params),
            twin = at_once.prefill(kPrompt, at_once.params);
  EXPECT_EQ(step_to(head, cache, kBegins + 1).size(), step_to(head, twin, kBegins + 1).size());
  EXPECT_TRUE(cache.refreshing());
  EXPECT_FALSE(twin.refreshing());
  EXPECT_EQ(twin.indexed(), kBegins - kSink - kWindow);
  for (std::size_t p = kBegins + 1; p <= kAdopts; ++p) {
    EXPECT_EQ(cache.indexed(), kPrompt - kSink - kWindow) << p;
    step_to(head, cache, p);
  }
  step_to(head, cache, kAdopts + 1);
  EXPECT_FALSE(cache.refreshing());
  EXPECT_EQ(cache.indexed(), twin.indexed());
  EXPECT_EQ(cache.plan().retriever, twin.plan().retriever);
  EXPECT_EQ(cache.plan().expected_error, twin.plan().expected_error);
  EXPECT_EQ(cache.plan().bytes_per_step, twin.plan().bytes_per_step);
  step_to(head, twin, kAdopts + 1);
  EXPECT_EQ(cache.bytes(), twin.bytes());
}

TEST_P(Aside, WhoPlansAndWhenDoesNotShow) {
  const DecodeHead head = small_head(GetParam());
  const HeadCache begin = head.prefill(kPrompt, head.params);
  constexpr std::size_t kEnd = kAdopts + 12;
  HeadCache alone = begin;
  const std::vector<float> expected = step_to(head, alone, kEnd);
  for (const auto& [threads, pause] : {std::pair(1, 0), std::pair(2, 500)}) {
    DecodePool pool(threads, thread_executor());
    std::vector<HeadCache> heads(2, begin);
    EXPECT_EQ(step_both_to(head, heads, kEnd, pool, std::chrono::microseconds(pause)), expected);
    EXPECT_EQ(heads[0].indexed(), alone.indexed());
  }
  HeadCache handed = begin;  // planned on a thread of the caller's, some time
  std::vector<float> found = step_to(head, handed, kBegins + 1);
  std::thread thread([refresh = handed.begin_refresh()] { refresh.run({.threads = 2}); });
  const std::vector<float> rest = step_to(head, handed, kEnd);
  thread.join();
  found.insert(found.end(), rest.begin(), rest.end());
  EXPECT_EQ(found, expected);
}

TEST_P(Aside, CopiesAdoptItAndFilesBeginItAgain) {
  const DecodeHead head = small_head(GetParam());
  HeadCache cache = head.prefill(kPrompt, head.params);
  step_to(head, cache, kBegins + 3);
  HeadCache copy = cache, loaded = HeadCache::from_bytes(cache.to_bytes());
  EXPECT_TRUE(copy.refreshing());
  EXPECT_FALSE(loaded.refreshing());
  EXPECT_EQ(step_to(head, cache, kAdopts + 5), step_to(head, copy, kAdopts + 5));
  EXPECT_EQ(copy.indexed(), kBegins - kSink - kWindow);
  step_to(head, loaded, kBegins + 3 + kDelay);
  EXPECT_EQ(loaded.indexed(), kPrompt - kSink - kWindow);
  step_to(head, loaded, kBegins + 3 + kDelay + 1);
  EXPECT_EQ(loaded.indexed(), kBegins + 3 - kSink - kWindow);
}

INSTANTIATE_TEST_SUITE_P(Every, Aside,
                         testing::Values(std::nullopt, Retriever::everything, Retriever::flat,
                                         Retriever::sketch, Retriever::projection),
                         [](const auto& each) {
                           return each.param ? std::string(to_string(*each.param))
                                             : std::string("planned");
                         });

TEST(RefreshAside, TruncatingKeepsItAsLongAsItsTokensAreThere) {
  for (const Retriever retriever : {Retriever::everything, Retriever::flat}) {
    const DecodeHead head = small_head(retriever);
    const HeadCache begin = head.prefill(kPrompt, head.params);
    HeadCache never = begin;
    step_to(head, never, kBegins);
    const std::vector<float> expected = step_to(head, never, kAdopts + 4);
    for (const std::size_t left : {kBegins, kBegins - 1, kBegins - 5}) {
      HeadCache cache = begin;
      step_to(head, cache, kBegins + 6);
      cache.truncate(left);
      EXPECT_EQ(cache.refreshing(), left == kBegins);
      step_to(head, cache, kBegins);
      EXPECT_EQ(step_to(head, cache, kAdopts + 4), expected) << left;
      EXPECT_EQ(cache.indexed(), kBegins - kSink - kWindow);
    }
    HeadCache deep = begin;
    step_to(head, deep, kBegins + 6);
    deep.truncate(kPrompt - 100);
    EXPECT_FALSE(deep.refreshing());
    step_to(head, deep, kPrompt - 100 + kHorizon + 1);
    EXPECT_EQ(deep.tokens(), kPrompt - 100 + kHorizon + 1);
  }
}

TEST(RefreshAside, ATurnMeanwhileIsNotIndexedYet) {
  const DecodeHead head = small_head(Retriever::flat);
  HeadCache cache = head.prefill(kPrompt, head.params);
  step_to(head, cache, kBegins + 1);
  DecodeScratch scratch;
  constexpr std::size_t kTurn = 100, kFirst = kBegins + 1;
  Matrix<float> out(2 * kTurn, 24);
  cache.extend(head.queries.view().slice(2 * kFirst, 2 * kTurn),
               head.f32_keys.view().slice(kFirst, kTurn),
               head.f32_values.view().slice(kFirst, kTurn), scratch, out.data());
  EXPECT_EQ(cache.indexed(), kPrompt - kSink - kWindow);
  step_to(head, cache, kFirst + kTurn + 1);
  EXPECT_EQ(cache.indexed(), kBegins - kSink - kWindow);
  EXPECT_TRUE(cache.refreshing());  // of the turn, with its queries
  step_to(head, cache, kFirst + kTurn + kDelay + 1);
  EXPECT_EQ(cache.indexed(), kFirst + kTurn - kSink - kWindow);
}

TEST(RefreshAside, ValuesInEightBitsAndPinnedTokensComeAlong) {
  DecodeHead head = small_head(Retriever::flat);
  head.params.int8_values = true;
  head.params.pinned = 6;
  HeadCache cache = head.prefill(kPrompt, head.params);
  EXPECT_LT(head.decode(cache, kAdopts + 20 - kPrompt), 0.4);
  EXPECT_EQ(cache.indexed(), kBegins - kSink - kWindow - 6);
  std::vector<std::byte> keys(cache.tokens() * 32 * 2), values(cache.tokens() * 24 * 2);
  cache.copy_tokens(keys.data(), values.data());
  EXPECT_EQ(elements(to_f32({keys.data(), Dtype::f16, cache.tokens(), 32, 32})),
            elements(to_f32(head.keys.view().slice(0, cache.tokens()))));
}

TEST(RefreshAside, NoStepWaitsBeforeItIsDue) {
  DecodeHead head = small_head(Retriever::custom);
  std::atomic<bool> hold = false;
  std::promise<void> go;
  const std::shared_future<void> gone(go.get_future());
  std::atomic<int> made = 0;
  head.params.index = searched([&] {
    ++made;
    if (hold) gone.wait();
  });
  HeadCache cache = head.prefill(kPrompt, head.params), plain = cache;
  const std::vector<float> expected = step_to(head, plain, kAdopts + 3);
  std::vector<float> found = step_to(head, cache, kBegins + 1);
  hold = true;
  made = 0;
  const Refresh refresh = cache.begin_refresh();
  std::thread thread([&] { refresh.run({.threads = 1}); });
  while (made == 0) std::this_thread::yield();
  std::vector<float> more = step_to(head, cache, kAdopts);  // up to the last one before
  found.insert(found.end(), more.begin(), more.end());
  EXPECT_FALSE(refresh.done());
  EXPECT_EQ(cache.indexed(), kPrompt - kSink - kWindow);
  std::thread later([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    go.set_value();
  });
  more = step_to(head, cache, kAdopts + 3);
  found.insert(found.end(), more.begin(), more.end());
  EXPECT_TRUE(refresh.done());
  EXPECT_EQ(made, 1);
  EXPECT_EQ(found, expected);
  thread.join();
  later.join();
}

TEST(RefreshAside, ASearchOfTheCallersOwnIsMadeInStepsAlone) {
  DecodeHead head = small_head(Retriever::custom);
  std::atomic<bool> elsewhere = false;
  const std::thread::id here = std::this_thread::get_id();
  head.params.index = searched([&] {
    if (std::this_thread::get_id() != here) elsewhere = true;
  });
  std::vector<HeadCache> heads(2, head.prefill(kPrompt, head.params));
  DecodePool pool(1);
  step_both_to(head, heads, kAdopts + 2, pool, std::chrono::microseconds(200));
  EXPECT_EQ(heads[0].indexed(), kBegins - kSink - kWindow);
  EXPECT_FALSE(elsewhere);
}

TEST(RefreshAside, AnErrorIsThrownWhereItIsAdoptedAndNothingIsLost) {
  DecodeHead head = small_head(Retriever::custom);
  std::atomic<int> failures = 0;
  head.params.index = searched([&] {
    if (failures-- > 0) throw std::runtime_error("no room for an index");
  });
  HeadCache cache = head.prefill(kPrompt, head.params), plain = cache;
  const std::vector<float> expected = step_to(head, plain, kAdopts + 3);
  std::vector<float> found = step_to(head, cache, kAdopts);
  failures = 2;
  cache.begin_refresh().run({.threads = 1});
  DecodeScratch scratch;
  Matrix<float> out(2, 24);
  for (int i = 0; i < 2; ++i) {  // the one in the background, and another try
    EXPECT_THROW(cache.step(head.at(kAdopts), head.f32_keys.row(kAdopts),
                            head.f32_values.row(kAdopts), scratch, out.data()),
                 std::runtime_error);
    EXPECT_EQ(cache.tokens(), kAdopts);
    EXPECT_TRUE(cache.refreshing());
  }
  failures = 0;
  const std::vector<float> more = step_to(head, cache, kAdopts + 3);
  found.insert(found.end(), more.begin(), more.end());
  EXPECT_EQ(found, expected);
}

TEST(RefreshAside, IsStoppedAndTakenUpByAnother) {
  const DecodeHead head = small_head(Retriever::projection);
  HeadCache cache = head.prefill(kPrompt, head.params), plain = cache;
  step_to(head, cache, kBegins + 1);
  const Refresh refresh = cache.begin_refresh();
  refresh.run({.threads = 1, .progress = [](auto, auto, auto) { return false; }});
  EXPECT_FALSE(refresh.done());
  step_to(head, cache, kAdopts + 1);
  EXPECT_TRUE(refresh.done());
  EXPECT_EQ(step_to(head, cache, kAdopts + 5),
            (step_to(head, plain, kAdopts + 1), step_to(head, plain, kAdopts + 5)));
  Refresh().run();
  EXPECT_FALSE(Refresh().done());
  test::expect_error(ErrorCode::invalid_argument, {"threads is -1"},
                     [&] { refresh.run({.threads = -1}); });
}

TEST(RefreshAside, IsBegunAndAdoptedByHand) {
  const DecodeHead head = small_head(Retriever::flat, 0);
  HeadCache cache = head.prefill(kPrompt, head.params), empty;
  cache.adopt_refresh();
  EXPECT_FALSE(cache.begin_refresh().done());
  EXPECT_FALSE(cache.refreshing());  // too few queries for another plan
  step_to(head, cache, kPrompt + 66);
  static_cast<void>(cache.begin_refresh());
  EXPECT_TRUE(cache.refreshing());
  EXPECT_GT(cache.bytes(), HeadCache::from_bytes(cache.to_bytes()).bytes());
  cache.adopt_refresh();
  EXPECT_EQ(cache.indexed(), kPrompt + 66 - kSink - kWindow);
  EXPECT_FALSE(cache.refreshing());
  test::expect_error(ErrorCode::invalid_argument, {"empty"}, [&] { empty.adopt_refresh(); });
  EXPECT_FALSE(empty.refreshing());
}

TEST(RefreshAside, APoolThatEndsLeavesItToTheSteps) {
  const DecodeHead head = small_head(Retriever::projection);
  std::vector<HeadCache> heads(2, head.prefill(kPrompt, head.params));
  HeadCache alone = heads[0];
  const std::vector<float> expected = step_to(head, alone, kAdopts + 3);
  {
    DecodePool pool(1);
    step_both_to(head, heads, kBegins + 1, pool);
  }
  EXPECT_TRUE(heads[1].refreshing());
  std::vector<float> found = step_to(head, heads[1], kAdopts + 3);
  EXPECT_EQ(found, std::vector<float>(expected.end() - static_cast<std::ptrdiff_t>(found.size()),
                                      expected.end()));
}

TEST(RefreshAside, AForkedChildPlansWhatItsParentsThreadWasAt) {
#ifdef __SANITIZE_THREAD__
  GTEST_SKIP() << "the thread sanitizer ends a forked child that starts threads";
#endif
  DecodeHead head = small_head(Retriever::custom);
  std::atomic<bool> hold = false, held = false;
  const pid_t parent = ::getpid();
  head.params.index = searched([&] {
    if (::getpid() != parent) return;
    held = true;
    while (hold) std::this_thread::yield();
  });
  HeadCache cache = head.prefill(kPrompt, head.params);
  step_to(head, cache, kBegins + 1);
  hold = true, held = false;
  std::thread thread([refresh = cache.begin_refresh()] { refresh.run({.threads = 1}); });
  while (!held) std::this_thread::yield();
  const pid_t child = ::fork();
  if (child == 0) {
    step_to(head, cache, kAdopts + 1);
    ::_exit(cache.indexed() == kBegins - kSink - kWindow ? 0 : 1);
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  hold = false;
  thread.join();
  step_to(head, cache, kAdopts + 1);
  EXPECT_EQ(cache.indexed(), kBegins - kSink - kWindow);
}

}  // namespace
}  // namespace keyseek
