// Threads that any number of callers share.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "decode/head_state.hpp"
#include "keyseek/decode_pool.hpp"
#include "support/decode_head.hpp"
#include "support/random_data.hpp"
#include "support/reference.hpp"

namespace keyseek {
namespace {

/// Memory of a scratch, to see whose it is.
std::vector<std::size_t>& kept(DecodeScratch& scratch) {
  return DecodeScratch::State::of(scratch).kept;
}

using test::DecodeHead;
using test::elements;

/// body(caller) in so many threads at once.
void at_once(std::size_t callers, const std::function<void(std::size_t)>& body) {
  std::atomic<std::size_t> there = 0;
  std::vector<std::jthread> threads;
  for (std::size_t c = 0; c < callers; ++c)
    threads.emplace_back([&, c] {
      ++there;
      while (there < callers) std::this_thread::yield();
      body(c);
    });
}

TEST(DecodePool, TheSameThreadsServeManyCalls) {
  DecodePool pool(3);
  EXPECT_EQ(pool.threads(), 3);
  for (std::size_t call = 0; call < 200; ++call) {
    std::vector<std::atomic<int>> done(call % 7);
    pool.run(done.size(), [&](std::size_t i, DecodeScratch&) { ++done[i]; });
    for (const auto& each : done) EXPECT_EQ(each.load(), 1);
  }
}

TEST(DecodePool, TheFirstErrorIsRethrownAndTheNextCallWorks) {
  DecodePool pool(2);
  EXPECT_THROW(pool.run(8,
                        [](std::size_t i, DecodeScratch&) {
                          if (i == 3) throw std::runtime_error("three");
                        }),
               std::runtime_error);
  std::atomic<int> count = 0;
  pool.run(8, [&](std::size_t, DecodeScratch&) { ++count; });
  EXPECT_EQ(count.load(), 8);
}

TEST(DecodePool, AForkedChildHasThreadsOfItsOwn) {
#if defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "the thread sanitizer ends a forked child that starts threads";
#endif
  DecodePool pool(2);
  const auto sum_to_ten = [&] {
    std::atomic<std::size_t> sum = 0;
    pool.run(5, [&](std::size_t i, DecodeScratch&) { sum += i; });
    return sum.load();
  };
  EXPECT_EQ(sum_to_ten(), 10U);
  const pid_t child = ::fork();
  if (child == 0) ::_exit(sum_to_ten() == 10 ? 0 : 1);
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_EQ(sum_to_ten(), 10U);
}

TEST(DecodePool, ServesManyCallersAtOnce) {
  for (const int threads : {1, 2, 4}) {
    DecodePool pool(threads);
    std::atomic<std::size_t> wrong = 0;
    at_once(4, [&](std::size_t caller) {
      for (std::size_t call = 0; call < 300; ++call) {
        // Each of the call's own, each once, and in a scratch that nobody else works in.
        std::vector<std::size_t> seen((caller + call) % 9);
        pool.run(seen.size(), [&](std::size_t i, DecodeScratch& scratch) {
          kept(scratch).assign(50, caller * 1000 + i);
          ++seen[i];
          for (const std::size_t x : kept(scratch)) wrong += x == caller * 1000 + i ? 0 : 1;
        });
        for (const std::size_t count : seen) wrong += count == 1 ? 0 : 1;
      }
    });
    EXPECT_EQ(wrong.load(), 0U);
  }
}

TEST(DecodePool, AnErrorReachesItsOwnCaller) {
  DecodePool pool(3);
  std::vector<std::size_t> wrong(4);
  at_once(4, [&](std::size_t caller) {
    for (std::size_t call = 0; call < 200; ++call) {
      const bool fails = (caller + call) % 2 == 0;
      const std::string mine = std::to_string(caller) + "/" + std::to_string(call);
      std::string got;
      try {
        pool.run(6, [&](std::size_t i, DecodeScratch&) {
          if (fails && i == call % 6) throw std::runtime_error(mine);
        });
      } catch (const std::runtime_error& error) {
        got = error.what();
      }
      wrong[caller] += got == (fails ? mine : "") ? 0 : 1;
    }
  });
  EXPECT_EQ(wrong, std::vector<std::size_t>(4));
}

TEST(DecodePool, ABodyMayCallItAgain) {
  for (const int threads : {1, 2, 4}) {
    DecodePool pool(threads);
    std::atomic<std::size_t> wrong = 0, count = 0;
    at_once(2, [&](std::size_t) {
      for (std::size_t call = 0; call < 30; ++call)
        pool.run(5, [&](std::size_t i, DecodeScratch& outer) {
          kept(outer).assign(50, i);
          pool.run(4, [&](std::size_t j, DecodeScratch& inner) {
            kept(inner).assign(50, 100 + j);
            ++count;
          });
          for (const std::size_t x : kept(outer)) wrong += x == i ? 0 : 1;
        });
    });
    EXPECT_EQ(wrong.load(), 0U);
    EXPECT_EQ(count.load(), 2U * 30 * 5 * 4);
  }
}

TEST(DecodePool, AChildForkedWhileItIsBusyHasThreadsOfItsOwn) {
#if defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "the thread sanitizer ends a forked child that starts threads";
#endif
  DecodePool pool(2);
  std::atomic<bool> stop = false;
  std::jthread busy([&] {
    while (!stop) pool.run(4, [](std::size_t, DecodeScratch& scratch) { kept(scratch).resize(9); });
  });
  for (int round = 0; round < 20; ++round) {
    const pid_t child = ::fork();
    if (child == 0) {
      std::atomic<std::size_t> sum = 0;
      pool.run(5, [&](std::size_t i, DecodeScratch&) { sum += i; });
      ::_exit(sum.load() == 10 ? 0 : 1);
    }
    int status = -1;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
  stop = true;
}

/// The outputs of `steps` steps of the heads, one after the other.
std::vector<float> decode(const DecodeHead& head, std::vector<HeadCache>& heads, std::size_t steps,
                          DecodePool& pool) {
  const std::size_t count = heads.size(), d = head.keys.cols(), dv = head.values.cols();
  std::vector<HeadCache*> pointers;
  for (HeadCache& each : heads) pointers.push_back(&each);
  Matrix<float> queries(count * head.group, d), keys(count, d), values(count, dv),
      out(count * head.group, dv);
  std::vector<float> all;
  for (std::size_t s = 0; s < steps; ++s) {
    for (std::size_t h = 0; h < count; ++h) {
      const std::size_t position = heads[h].tokens();
      for (std::size_t g = 0; g < head.group; ++g)
        std::copy_n(head.at(position).row(g), d, queries.row(h * head.group + g));
      std::copy_n(head.f32_keys.row(position), d, keys.row(h));
      std::copy_n(head.f32_values.row(position), dv, values.row(h));
    }
    step_heads(pointers, queries, keys, values, pool, out.data());
    all.insert(all.end(), out.data(), out.data() + out.rows() * dv);
  }
  return all;
}

class CopiesInThreads : public testing::TestWithParam<Retriever> {};

TEST_P(CopiesInThreads, GiveWhatOneThreadGives) {
  constexpr std::size_t kPrompt = 300, kSteps = 60, kCallers = 3;
  DecodeHead head = test::normal_head(kPrompt + kSteps + 10, 2);
  head.params.shift = false;
  head.params.sink = 4;
  head.params.window = 16;
  head.params.horizon = 30;  // a refresh on the way
  head.params.least_indexed = 40;
  head.params.tail_vectors = 8;
  test::give(head.params, GetParam(), 20);
  std::vector<HeadCache> heads;
  for (const std::size_t n : {kPrompt, kPrompt - 50, kPrompt - 100, kPrompt - 3})
    heads.push_back(head.prefill(n, head.params));
  DecodePool alone(1), shared(2);
  std::vector<HeadCache> reference = heads;
  const std::vector<float> expected = decode(head, reference, kSteps, alone);
  std::vector<std::vector<float>> got(kCallers);
  at_once(kCallers, [&](std::size_t caller) {
    std::vector<HeadCache> mine = heads;
    got[caller] = decode(head, mine, kSteps, shared);
  });
  for (const std::vector<float>& each : got) EXPECT_EQ(each, expected);
}

INSTANTIATE_TEST_SUITE_P(Every, CopiesInThreads,
                         testing::Values(Retriever::everything, Retriever::none, Retriever::flat,
                                         Retriever::sketch, Retriever::projection),
                         [](const auto& each) { return std::string(to_string(each.param)); });

}  // namespace
}  // namespace keyseek
