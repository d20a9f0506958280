// Heads that borrow when memory runs out: all of what was announced, or nothing of it.
#include <gtest/gtest.h>

#include <vector>

#include "memory/out_of_memory.hpp"
#include "support/decode_head.hpp"
#include "support/paged_memory.hpp"
#include "support/reference.hpp"

namespace keyseek {
namespace {

using test::DecodeHead;
using test::run_out_everywhere;

constexpr std::size_t kPrompt = 120, kAll = 320, kGroup = 2, kHorizon = 30, kTurn = 20;

enum class Way { announce, step, extend };

class PagedSteps : public testing::TestWithParam<Way> {
 protected:
  PagedSteps() {
    head.params.shift = false;
    head.params.sink = 4;
    head.params.window = 8;
    head.params.horizon = kHorizon;
    head.params.least_indexed = 20;
    test::give(head.params, Retriever::sketch, 8);
    memory.write(head.keys.view(), head.values.view());
  }

  struct AtWork {
    HeadCache cache;
    DecodeScratch scratch;
    Matrix<float> out = Matrix<float>(kTurn * kGroup, 10);
  };

  void work(AtWork& at) const {
    const std::size_t p = at.cache.tokens(), pages = (p + 15) / 16;
    const std::span<const Id> more = std::span(memory.table()).subspan(pages, 2);
    const auto queries = head.queries.view().slice(p * kGroup, kTurn * kGroup);
    switch (GetParam()) {
      case Way::announce:
        return at.cache.announce(kTurn, more, queries);
      case Way::step:
        return at.cache.step_announced(AnyMatrixView::of(queries.slice(0, kGroup)), more,
                                       at.scratch, at.out.data());
      case Way::extend:
        return at.cache.extend_announced(AnyMatrixView::of(queries), more, at.scratch,
                                         at.out.data());
    }
  }

  DecodeHead head = test::normal_head(kAll, kGroup, Dtype::f16, 12, 10);
  test::PagedMemory memory{
      test::PagedMemory::pages_for(kAll, 16), 16, test::Paging::rows_first, Dtype::f16, 12, 10};
};

TEST_P(PagedSteps, AreWholeOrNotAtAll) {
  for (const std::size_t taken : {std::size_t{8}, kHorizon + 8 + 10}) {  // the second one refreshes
    HeadCache begin = HeadCache::borrow(
        memory.keys(), memory.values(), std::span(memory.table()).first(8), kPrompt,
        head.queries.view().slice(0, kPrompt * kGroup), kGroup, head.params, {.threads = 1});
    begin.announce(8);
    if (taken > 8)
      begin.announce(taken - 8, std::span(memory.table()).subspan(8, 3),
                     head.queries.view().slice(128 * kGroup, (taken - 8) * kGroup));
    AtWork fine{begin, {}};
    work(fine);
    const std::size_t own = begin.tokens();
    run_out_everywhere(
        [&] {
          return AtWork{begin, {}};
        },
        [&](AtWork& at) { work(at); },
        [&](AtWork& at, bool threw) {
          if (threw) {
            EXPECT_EQ(at.cache.tokens(), own);
            work(at);  // the pages are still to be named
          }
          EXPECT_EQ(test::elements(at.out), test::elements(fine.out));
          EXPECT_TRUE(at.cache.to_bytes() == fine.cache.to_bytes());
        });
  }
}

INSTANTIATE_TEST_SUITE_P(Of, PagedSteps, testing::Values(Way::announce, Way::step, Way::extend));

}  // namespace
}  // namespace keyseek
