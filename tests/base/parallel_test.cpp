#include "base/parallel.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>
#include <string>
#include <vector>

#include "keyseek/error.hpp"

namespace keyseek {
namespace {

Execution with_threads(int threads) {
  Execution run;
  run.threads = threads;
  return run;
}

TEST(Execution, RefusesSenselessThreads) {
  EXPECT_NO_THROW(with_threads(0).validate());
  EXPECT_NO_THROW(with_threads(4096).validate());
  EXPECT_THROW(with_threads(-1).validate(), Error);
  try {
    with_threads(5000).validate();
    FAIL() << "not refused";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::invalid_argument);
    EXPECT_STREQ(e.what(), "threads is 5000, must be in [0, 4096]");
  }
}

TEST(Execution, ResolvesZeroThreads) {
  EXPECT_GE(with_threads(0).thread_count(), 1);
  EXPECT_EQ(with_threads(3).thread_count(), 3);
}

TEST(ParallelFor, VisitsEveryIndexOnce) {
  for (const int threads : {1, 2, 5}) {
    for (const std::size_t count : {1U, 2U, 7U, 64U, 1000U}) {
      for (const std::size_t grain : {1U, 3U, 64U, 5000U}) {
        std::vector<std::atomic<int>> visits(count);
        parallel_for(count, grain, with_threads(threads), "",
                     [&](std::size_t begin, std::size_t end, int worker) {
                       ASSERT_LT(begin, end);
                       ASSERT_LE(end, count);
                       ASSERT_LE(end - begin, grain);
                       ASSERT_EQ(begin % grain, 0U);  // the chunks do not depend on the threads
                       ASSERT_GE(worker, 0);
                       ASSERT_LT(worker, threads);
                       for (std::size_t i = begin; i < end; ++i) ++visits[i];
                     });
        for (const auto& v : visits) ASSERT_EQ(v.load(), 1);
      }
    }
  }
}

TEST(ParallelFor, NeverSharesAWorkerNumber) {
  constexpr int kThreads = 4;
  std::vector<std::atomic<int>> inside(kThreads);
  std::atomic<bool> shared = false;
  parallel_for(2000, 1, with_threads(kThreads), "", [&](std::size_t, std::size_t, int worker) {
    auto& here = inside[static_cast<std::size_t>(worker)];
    if (++here != 1) shared = true;
    --here;
  });
  EXPECT_FALSE(shared);
}

TEST(ParallelFor, DoesNothingForZero) {
  Execution run = with_threads(2);
  run.progress = [](std::string_view, std::size_t, std::size_t) -> bool {
    throw std::logic_error("reported");
  };
  parallel_for(0, 8, run, "stage", [](std::size_t, std::size_t, int) { FAIL() << "called"; });
}

TEST(ParallelFor, RethrowsWhatTheBodyThrew) {
  for (const int threads : {1, 3}) {
    EXPECT_THROW(parallel_for(100, 1, with_threads(threads), "",
                              [](std::size_t begin, std::size_t, int) {
                                if (begin == 41) throw std::out_of_range("41");
                              }),
                 std::out_of_range);
  }
}

TEST(ParallelFor, StopsAfterAnException) {
  std::size_t calls = 0;
  EXPECT_THROW(parallel_for(100, 1, with_threads(1), "",
                            [&](std::size_t, std::size_t, int) {
                              if (++calls == 5) throw std::runtime_error("enough");
                            }),
               std::runtime_error);
  EXPECT_EQ(calls, 5U);
}

TEST(ParallelFor, ReportsProgressUpToTheEnd) {
  for (const int threads : {1, 3}) {
    Execution run = with_threads(threads);
    std::size_t last = 0;
    std::size_t reports = 0;
    run.progress = [&](std::string_view stage, std::size_t done, std::size_t total) {
      EXPECT_EQ(stage, "scan");
      EXPECT_EQ(total, 10000U);
      EXPECT_GT(done, last);
      last = done;
      ++reports;
      return true;
    };
    parallel_for(10000, 3, run, "scan", [](std::size_t, std::size_t, int) {});
    EXPECT_EQ(last, 10000U);
    EXPECT_GE(reports, 100U);
    EXPECT_LE(reports, 201U);
  }
}

TEST(ParallelFor, IsSilentWithoutAStage) {
  Execution run = with_threads(2);
  run.progress = [](std::string_view, std::size_t, std::size_t) {
    ADD_FAILURE() << "reported";
    return true;
  };
  parallel_for(100, 1, run, "", [](std::size_t, std::size_t, int) {});
}

TEST(ParallelFor, IsCancelledByProgress) {
  for (const int threads : {1, 3}) {
    Execution run = with_threads(threads);
    run.progress = [](std::string_view, std::size_t done, std::size_t) { return done < 50; };
    std::atomic<std::size_t> calls = 0;
    try {
      parallel_for(1000, 1, run, "build", [&](std::size_t, std::size_t, int) { ++calls; });
      FAIL() << "not cancelled";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::cancelled);
      EXPECT_EQ(std::string(e.what()).rfind("cancelled during build at ", 0), 0U) << e.what();
    }
    EXPECT_GE(calls, 50U);
    EXPECT_LT(calls, 1000U);
  }
}

TEST(ParallelFor, GivesTheSameResultAtAnyThreadCount) {
  const auto sums = [](int threads) {
    std::vector<double> out(500);
    parallel_for(out.size(), 7, with_threads(threads), "",
                 [&](std::size_t begin, std::size_t end, int) {
                   double sum = 0;
                   for (std::size_t i = begin; i < end; ++i) {
                     sum += 1.0 / static_cast<double>(i + 1);
                     out[i] = sum;
                   }
                 });
    return out;
  };
  const auto one = sums(1);
  EXPECT_EQ(sums(2), one);
  EXPECT_EQ(sums(5), one);
}

}  // namespace
}  // namespace keyseek
