// Pages and tables that cannot be: each is refused by name, and the head stays as it was.
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "file/temporary_directory.hpp"
#include "keyseek/error.hpp"
#include "support/decode_head.hpp"
#include "support/paged_memory.hpp"
#include "support/reference.hpp"

namespace keyseek {
namespace {

using test::DecodeHead;
using test::elements;
using test::expect_error;
using test::PagedMemory;

constexpr ErrorCode kInvalid = ErrorCode::invalid_argument;
constexpr std::size_t kPrompt = 120, kAll = 300, kGroup = 2, kRows = 16, kHorizon = 40;

class PagedInput : public testing::Test {
 protected:
  PagedInput() : memory_(kPages, kRows, test::Paging::rows_first, Dtype::f16, 20, 12) {
    head_.params.shift = false;
    head_.params.sink = 4;
    head_.params.window = 8;
    head_.params.horizon = kHorizon;
    head_.params.least_indexed = 20;
    test::give(head_.params, Retriever::flat, 10);
    write(kPrompt);
  }

  std::vector<Id> write(std::size_t count) {
    written_ += count;
    return memory_.write(head_.keys.view().slice(written_ - count, count),
                         head_.values.view().slice(written_ - count, count));
  }
  [[nodiscard]] HeadCache borrow(const RowPages& keys, const RowPages& values,
                                 const std::vector<Id>& table, std::size_t tokens = kPrompt) const {
    return HeadCache::borrow(keys, values, table, tokens,
                             head_.queries.view().slice(0, kPrompt * kGroup), kGroup, head_.params,
                             {.threads = 1});
  }
  [[nodiscard]] HeadCache borrow() const {
    return borrow(memory_.keys(), memory_.values(), memory_.table());
  }
  void refuses(const RowPages& keys, const RowPages& values, const char* what) const {
    expect_error(kInvalid, {what}, [&] { (void)borrow(keys, values, memory_.table()); });
  }
  void refuses(const std::vector<Id>& table, std::size_t tokens, const char* what) const {
    expect_error(kInvalid, {what},
                 [&] { (void)borrow(memory_.keys(), memory_.values(), table, tokens); });
  }
  /// By a head that has the prompt; nothing of it changes.
  void refuses(HeadCache& cache, ErrorCode code, const char* what,
               const std::function<void()>& call) const {
    const std::vector<std::byte> before = cache.to_bytes();
    const std::size_t bytes = cache.bytes();
    expect_error(code, {what}, call);
    EXPECT_TRUE(cache.to_bytes() == before);
    EXPECT_EQ(cache.bytes(), bytes);  // its pages included
  }

  static constexpr std::size_t kPages = 40;
  DecodeHead head_ = test::normal_head(kAll, kGroup, Dtype::f16, 20, 12);
  PagedMemory memory_;
  DecodeScratch scratch_;
  std::size_t written_ = 0;
};

TEST_F(PagedInput, OfMemory) {
  const RowPages keys = memory_.keys(), values = memory_.values();
  const auto wrong = [&](const char* what, const auto& change) {
    RowPages changed = keys;
    change(changed);
    refuses(changed, values, what);
  };
  wrong("keys are i8", [](RowPages& p) { p.dtype = Dtype::i8; });
  wrong("keys have 0 pages of 16 rows", [](RowPages& p) { p.pages = 0; });
  wrong("of 0 rows", [](RowPages& p) { p.page_rows = 0; });
  wrong("of 0 elements", [](RowPages& p) { p.cols = 0; });
  wrong("row_stride of 19", [](RowPages& p) { p.row_stride = 19; });
  wrong("page_stride of 641, must be a multiple of the row_stride, 40",
        [](RowPages& p) { p.page_stride = 641; });
  wrong("room for 15 rows, must have 16", [](RowPages& p) { p.page_stride = 600; });
  wrong("bytes end before the last row",
        [](RowPages& p) { p.memory = p.memory.first(p.memory.size() - 2); });
  wrong("bytes end before the last row", [](RowPages& p) { p.memory = p.memory.first(38); });
  wrong("bytes end before the last row", [](RowPages& p) { ++p.pages; });
  wrong("at most 4294967294 slots", [](RowPages& p) { p.pages = SIZE_MAX / 2; });
  wrong("at most 4294967294 slots", [](RowPages& p) { p.page_stride = SIZE_MAX / 80 * 40; });
  wrong("not aligned for f16", [](RowPages& p) {
    p.memory = {p.memory.data() - 1, p.memory.size()};
  });
  wrong("keys have 39 pages of 16 rows, values 40 of 16", [](RowPages& p) { --p.pages; });
  wrong("a page of keys has room for 32 rows, one of values for 16",
        [](RowPages& p) { p.row_stride /= 2; });
  RowPages whole = values;
  whole.dtype = Dtype::i8;
  refuses(keys, whole, "values are i8");
  const std::span<const std::byte> page = keys.memory.first(16 * 2 * 20 * 2 - 2);
  expect_error(kInvalid, {"the last one is shorter"}, [&] {
    (void)RowPages::of_blocks(page, Dtype::f16, {16, 2, 20}, 1);
  });
  expect_error(kInvalid, {"head is 2, a page has 2"}, [&] {
    (void)RowPages::of_blocks(page, Dtype::f16, {16, 2, 20}, 2);
  });
  expect_error(kInvalid, {"16 x 0 x 20"}, [&] {
    (void)RowPages::of_blocks(page, Dtype::f16, {16, 0, 20}, 0);
  });
}

TEST_F(PagedInput, OfTables) {
  std::vector<Id> table = memory_.table();
  refuses(table, 0, "keys is empty");
  refuses(table, 8 * kRows + 1, "there are 129 tokens, but 8 pages have room for 128");
  refuses({}, kPrompt, "0 pages have room for 0");
  table[3] = kPages;
  refuses(table, kPrompt, "pages name page 40, there are 40");
  table[3] = table[5];
  refuses(table, kPrompt, ("page " + std::to_string(table[5]) + " twice").c_str());
}

TEST_F(PagedInput, OfTokens) {
  HeadCache cache = borrow();
  const std::size_t room = memory_.table().size() * kRows - kPrompt;
  refuses(cache, kInvalid, "there are 129 tokens, but 8 pages", [&] { cache.announce(room + 1); });
  refuses(cache, ErrorCode::not_finite, "the keys written row 0 holds NaN",
          [&] { cache.announce(1); });
  const std::vector<Id> more = write(room + 5);
  refuses(cache, kInvalid, "page 40, there are 40", [&] {
    cache.announce(room + 5, std::vector<Id>{more[0], kPages});
  });
  refuses(cache, kInvalid, "twice", [&] {
    cache.announce(room + 5, std::vector<Id>{more[0], more[0]});
  });
  refuses(cache, kInvalid, "which has tokens from 32 on already", [&] {
    cache.announce(room + 5, std::vector<Id>{more[0], memory_.table()[2]});
  });
  refuses(cache, ErrorCode::not_finite, "the keys written row 13 holds NaN",
          [&] { cache.announce(room + 6, more); });
  refuses(cache, kInvalid, "count is 18446744073709551615", [&] { cache.announce(SIZE_MAX); });
  refuses(cache, kInvalid, "queries are 2 x 20, must be 4 x 20",
          [&] { cache.announce(2, {}, head_.at(kPrompt)); });
  refuses(cache, kInvalid, "tokens is 200, the head has 120", [&] { cache.truncate(200); });
  cache.announce(room + 5, more);
  EXPECT_EQ(cache.tokens(), kPrompt + room + 5);
}

TEST_F(PagedInput, OfSteps) {
  HeadCache cache = borrow();
  const std::vector<Id> more = write(20);
  Matrix<float> out(20 * kGroup, 12);
  const AnyMatrixView none = AnyMatrixView::of(head_.at(0).slice(0, 1));
  refuses(cache, kInvalid, "queries are 1 x 20, must be 2 x 20",
          [&] { cache.step_announced(none, {}, scratch_, out.data()); });
  refuses(cache, kInvalid, "queries has 1 rows, no multiple of group = 2",
          [&] { cache.extend_announced(none, more, scratch_, out.data()); });
  // Logits that are no numbers are found after the token was taken.
  Matrix<float> far(kGroup, 20);
  std::fill_n(far.data(), kGroup * 20, 3e38F);
  const auto huge = AnyMatrixView::of(far.view());
  refuses(cache, kInvalid, "beyond what f32 holds",
          [&] { cache.step_announced(huge, more, scratch_, out.data()); });
  refuses(cache, kInvalid, "beyond what f32 holds",
          [&] { cache.extend_announced(huge, more, scratch_, out.data()); });
  cache.step_announced(AnyMatrixView::of(head_.at(kPrompt)), more, scratch_, out.data());
  EXPECT_EQ(cache.tokens(), kPrompt + 1);
}

TEST_F(PagedInput, OfTheOtherKindOfHead) {
  HeadCache borrowed = borrow(), owned = head_.prefill(kPrompt, head_.params);
  Matrix<float> out(kGroup, 12);
  std::vector<float> lse(kGroup);
  const float *key = head_.f32_keys.row(kPrompt), *value = head_.f32_values.row(kPrompt);
  const MatrixView<float> asked = head_.at(kPrompt);
  const char* const written = "the head borrows its tokens";
  refuses(borrowed, kInvalid, written, [&] { borrowed.append(key, value); });
  refuses(borrowed, kInvalid, written,
          [&] { borrowed.step(asked, key, value, scratch_, out.data()); });
  refuses(borrowed, kInvalid, written, [&] {
    borrowed.extend(asked, {key, 1, 20}, {value, 1, 12}, scratch_, out.data());
  });
  refuses(borrowed, kInvalid, written, [&] {
    borrowed.step_beside_static(asked, key, value, scratch_, out.data(), lse.data());
  });
  refuses(borrowed, kInvalid, written, [&] { (void)borrowed.static_part(); });
  const char* const own = "the head has tokens of its own";
  refuses(owned, kInvalid, own, [&] { owned.announce(1); });
  refuses(owned, kInvalid, own,
          [&] { owned.step_announced(AnyMatrixView::of(asked), {}, scratch_, out.data()); });
  refuses(owned, kInvalid, own,
          [&] { owned.extend_announced(AnyMatrixView::of(asked), {}, scratch_, out.data()); });
}

TEST_F(PagedInput, OfATableThatWasCut) {
  HeadCache cache = borrow();
  const std::vector<Id> table = memory_.table();
  cache.truncate(5 * kRows);
  const std::vector<Id> own = {table[4]}, gone = {table[5]};
  // What is left has its pages; the others may come back, one after the other.
  refuses(cache, kInvalid, "which has tokens from 64 on already", [&] { cache.announce(1, own); });
  refuses(cache, kInvalid, "there are 81 tokens, but 5 pages", [&] { cache.announce(1); });
  cache.announce(kRows, gone);
  EXPECT_EQ(cache.tokens(), 6 * kRows);
  EXPECT_EQ(cache.full_bytes() % (2 * (20 + 12)), 0U);
}

TEST_F(PagedInput, OfAHeadThatWasDropped) {
  HeadCache cache = borrow();
  cache = HeadCache();
  Matrix<float> out(kGroup, 12);
  const char* const empty = "the HeadCache is empty";
  expect_error(kInvalid, {empty}, [&] { cache.announce(1); });
  expect_error(kInvalid, {empty}, [&] { cache.truncate(1); });
  expect_error(kInvalid, {empty}, [&] {
    cache.step_announced(AnyMatrixView::of(head_.at(0)), {}, scratch_, out.data());
  });
  cache = borrow();  // its pages may be used again
  EXPECT_EQ(cache.tokens(), kPrompt);
}

}  // namespace
}  // namespace keyseek
