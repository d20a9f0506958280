/// Memory that runs out at a chosen allocation.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <new>

#include "keyseek/error.hpp"

namespace keyseek::test {

/// While this lives, the allocation after the next `count` ones fails, once, in any thread.
class RunsOut {
 public:
  explicit RunsOut(std::size_t count);
  ~RunsOut();
  RunsOut(const RunsOut&) = delete;
  RunsOut& operator=(const RunsOut&) = delete;

  [[nodiscard]] bool did() const;  ///< whether it came to that
};

/// work(state) on a fresh state of prepare(), its first allocation failing, then the second, and
/// so on until it needs no more. What it throws then is std::bad_alloc, or an Error; after each
/// failure check(state, failed) looks at what is left. Long works are tried at ever fewer places.
template <class Prepare, class Work, class Check>
void run_out_everywhere(const Prepare& prepare, const Work& work, const Check& check) {
  constexpr std::size_t kEach = 300;
  std::size_t failures = 0;
  for (std::size_t n = 0;; n += 1 + (n > kEach ? n / 24 : 0)) {
    SCOPED_TRACE(testing::Message() << "allocation " << n << " fails");
    auto state = prepare();
    bool threw = false, ran_out = false;
    {
      const RunsOut memory(n);
      try {
        work(state);
      } catch (const std::bad_alloc&) {
        threw = true;
      } catch (const Error&) {
        threw = true;
      }
      ran_out = memory.did();
    }
    ASSERT_TRUE(ran_out || !threw);
    if (!ran_out) break;
    failures += threw ? 1 : 0;
    check(state, threw);
    if (testing::Test::HasFailure()) return;
  }
  EXPECT_GT(failures, 0U);
}

}  // namespace keyseek::test
