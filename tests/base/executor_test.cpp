// Whoever's threads work is given to, it is the same work.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <numeric>
#include <vector>

#include "base/parallel.hpp"
#include "base/worker_pool.hpp"
#include "keyseek/error.hpp"

namespace keyseek {
namespace {

/// Runs tasks one after another, from last to first: the least an executor may do.
class Backwards final : public Executor {
 public:
  void run(std::size_t count, const std::function<void(std::size_t)>& task) override {
    for (std::size_t i = count; i-- > 0;) task(i);
    ++calls;
  }
  [[nodiscard]] std::string_view name() const noexcept override { return "backwards"; }
  std::atomic<int> calls = 0;
};

std::vector<std::shared_ptr<Executor>> all() {
  std::vector<std::shared_ptr<Executor>> executors = {
      thread_executor(), std::make_shared<WorkerPool>(3), std::make_shared<Backwards>()};
  if (openmp_executor()) executors.push_back(openmp_executor());
  return executors;
}

TEST(Executors, CallEveryTaskOnce) {
  for (const auto& executor : all()) {
    SCOPED_TRACE(executor->name());
    for (const std::size_t count : {0U, 1U, 2U, 7U}) {
      std::vector<std::atomic<int>> seen(count);
      executor->run(count, [&](std::size_t i) { ++seen[i]; });
      for (const auto& times : seen) EXPECT_EQ(times, 1);
    }
  }
}

TEST(Executors, MayBeCalledFromATask) {
  for (const auto& executor : all()) {
    SCOPED_TRACE(executor->name());
    std::atomic<int> inner = 0;
    executor->run(3, [&](std::size_t) { executor->run(2, [&](std::size_t) { ++inner; }); });
    EXPECT_EQ(inner, 6);
  }
}

TEST(Executors, ParallelForRunsOnTheOneThatIsGiven) {
  for (const auto& executor : all()) {
    SCOPED_TRACE(executor->name());
    const Execution run{.threads = 3, .progress = {}, .executor = executor};
    std::vector<int> out(1000);
    parallel_for(out.size(), 10, run, "", [&](std::size_t begin, std::size_t end, int worker) {
      EXPECT_LT(worker, 3);
      for (std::size_t i = begin; i < end; ++i) out[i] = static_cast<int>(i);
    });
    std::vector<int> expected(out.size());
    std::iota(expected.begin(), expected.end(), 0);
    EXPECT_EQ(out, expected);
    EXPECT_THROW(parallel_for(100, 1, run, "",
                              [](std::size_t begin, std::size_t, int) {
                                if (begin == 50) throw std::runtime_error("of a task");
                              }),
                 std::runtime_error);
  }
  const auto given = std::make_shared<Backwards>();
  parallel_for(10, 1, {.threads = 2, .progress = {}, .executor = given}, "", [](auto...) {});
  EXPECT_EQ(given->calls, 1);
}

TEST(Executors, WorkInAForkedChild) {
  for (const auto& executor : all()) {
    SCOPED_TRACE(executor->name());
    if (executor->name() == "pool") continue;  // its threads are its process's: PerProcess
    executor->run(2, [](std::size_t) {});
    const pid_t child = ::fork();
    if (child == 0) {
      ::alarm(20);
      std::atomic<int> done = 0;
      executor->run(4, [&](std::size_t) { ++done; });
      ::_exit(done == 4 ? 0 : 1);
    }
    int status = -1;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  }
}

TEST(Executors, TheDefaultIsOpenMpWhereItIsBuilt) {
  EXPECT_EQ(default_executor()->name(), openmp_executor() ? "openmp" : "threads");
}

}  // namespace
}  // namespace keyseek
