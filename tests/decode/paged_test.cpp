// Tokens in an engine's pages: the same results, bytes and plans as with copies, and no copy.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "file/temporary_directory.hpp"
#include "keyseek/decode_pool.hpp"
#include "keyseek/error.hpp"
#include "keyseek/score.hpp"
#include "support/decode_head.hpp"
#include "support/paged_memory.hpp"
#include "support/reference.hpp"

namespace keyseek {
namespace {

using test::DecodeHead;
using test::elements;
using test::PagedMemory;
using test::Paging;

constexpr ErrorCode kInvalid = ErrorCode::invalid_argument;
constexpr std::size_t kPrompt = 200, kAll = 420, kGroup = 2, kHorizon = 70, kWindow = 16;

DecodeHead small_head(Dtype dtype, DecodeParams change = {}) {
  change.tail_vectors = 8;
  change.pinned = 3;
  return test::in_few_tokens(test::normal_head(kAll, kGroup, dtype, 20, 12), change, kWindow,
                             kHorizon);
}

DecodeParams given(Retriever retriever, bool int8_values = false) {
  DecodeParams params;
  params.int8_values = int8_values;
  test::give(params, retriever, 20);
  return params;
}

/// Two caches of one head, the first with copies of its tokens and the second without.
struct Twins {
  Twins(const DecodeHead& of, std::size_t page_rows, Paging paging = Paging::rows_first)
      : head(of),
        memory(PagedMemory::pages_for(2 * kAll, page_rows), page_rows, paging, of.keys.dtype(),
               of.keys.cols(), of.values.cols()),
        owned(of.prefill(kPrompt, of.params)) {
    write(0, kPrompt);
    borrowed = HeadCache::borrow(memory.keys(), memory.values(), memory.table(), kPrompt,
                                 of.queries.view().slice(0, kPrompt * kGroup), kGroup, of.params,
                                 {.threads = 1});
  }

  std::vector<Id> write(std::size_t first, std::size_t count) {
    return memory.write(head.keys.view().slice(first, count),
                        head.values.view().slice(first, count));
  }
  [[nodiscard]] MatrixView<float> queries(std::size_t first, std::size_t count) const {
    return head.queries.view().slice(first * kGroup, count * kGroup);
  }

  void step() {
    const std::size_t position = owned.tokens();
    const auto pages = write(position, 1);
    Matrix<float> out(kGroup, head.values.cols());
    borrowed.step_announced(AnyMatrixView::of(head.at(position)), pages, scratch, out.data());
    EXPECT_EQ(elements(out), elements(head.step(owned, scratch)));
    EXPECT_EQ(borrowed.stats().bytes_read, owned.stats().bytes_read);
  }
  void turn(std::size_t count) {
    const std::size_t first = owned.tokens();
    const auto pages = write(first, count);
    Matrix<float> out(count * kGroup, head.values.cols()), wanted = out;
    borrowed.extend_announced(AnyMatrixView::of(queries(first, count)), pages, scratch, out.data());
    owned.extend(queries(first, count), head.f32_keys.view().slice(first, count),
                 head.f32_values.view().slice(first, count), scratch, wanted.data());
    EXPECT_EQ(elements(out), elements(wanted));
  }
  void append(std::size_t count) {
    const std::size_t first = owned.tokens();
    const auto pages = write(first, count);
    borrowed.announce(count, pages, queries(first, count));
    owned.append(head.f32_keys.view().slice(first, count),
                 head.f32_values.view().slice(first, count), queries(first, count));
  }
  void truncate(std::size_t tokens) {
    borrowed.truncate(tokens);
    owned.truncate(tokens);
    memory.truncate(tokens);
  }
  void expect_alike() {
    EXPECT_EQ(borrowed.tokens(), owned.tokens());
    EXPECT_EQ(borrowed.indexed(), owned.indexed());
    EXPECT_EQ(borrowed.pinned(), owned.pinned());
    EXPECT_EQ(borrowed.plan().retriever, owned.plan().retriever);
    EXPECT_EQ(borrowed.full_bytes(), owned.full_bytes());
    EXPECT_TRUE(borrowed.to_bytes() == owned.to_bytes());
  }

  const DecodeHead& head;
  PagedMemory memory;
  HeadCache owned, borrowed;
  DecodeScratch scratch;
};

/// Over two refreshes, a turn, and cuts of recent and of indexed tokens.
void live(Twins& twins) {
  twins.expect_alike();
  for (std::size_t i = 0; i < 2; ++i) twins.step();
  twins.turn(kHorizon);
  twins.step();  // refreshes
  twins.expect_alike();
  twins.truncate(twins.owned.tokens() - 3);
  twins.append(kHorizon);
  twins.step();
  twins.truncate(kPrompt / 2);
  twins.expect_alike();
  for (std::size_t i = 0; i < 3; ++i) twins.step();
  twins.expect_alike();
}

struct Case {
  Dtype dtype;
  std::size_t page_rows;
  Paging paging;
};

class Paged : public testing::TestWithParam<Case> {};

TEST_P(Paged, IsAsOwned) {
  const DecodeHead head = small_head(GetParam().dtype, given(Retriever::flat));
  Twins twins(head, GetParam().page_rows, GetParam().paging);
  live(twins);
}

std::string name_of(const testing::TestParamInfo<Case>& info) {
  const char* const pagings[] = {"rows_first", "heads_first", "keys_and_values"};
  return std::string(to_string(info.param.dtype)) + "_" + std::to_string(info.param.page_rows) +
         "_" + pagings[static_cast<int>(info.param.paging)];
}

INSTANTIATE_TEST_SUITE_P(Of, Paged,
                         testing::Values(Case{Dtype::f16, 16, Paging::rows_first},
                                         Case{Dtype::f16, 64, Paging::keys_and_values},
                                         Case{Dtype::bf16, 64, Paging::rows_first},
                                         Case{Dtype::bf16, 256, Paging::heads_first},
                                         Case{Dtype::f32, 16, Paging::heads_first},
                                         Case{Dtype::f32, 256, Paging::rows_first},
                                         Case{Dtype::f32, 1, Paging::keys_and_values}),
                         name_of);

TEST(PagedHead, IsAsOwnedWhateverSearches) {
  std::vector<DecodeParams> ways = {{},
                                    given(Retriever::none),
                                    given(Retriever::sketch),
                                    given(Retriever::projection),
                                    given(Retriever::flat, true)};
  ways[0].max_error = 0.3;
  for (const DecodeParams& way : ways) {
    const DecodeHead head = small_head(Dtype::f16, way);
    Twins twins(head, 64);
    SCOPED_TRACE(to_string(twins.owned.plan().retriever));
    live(twins);
  }
}

TEST(PagedHead, ShowsItsKeysToASearchOfTheCallers) {
  DecodeHead head = small_head(Dtype::bf16);
  head.params.index = [](const AnyMatrix& keys) -> SearchKeys {
    return [keys](MatrixView<float> queries, std::size_t k, Hits& hits) {
      std::vector<std::pair<float, Id>> all(keys.rows());
      hits.group = queries.rows;
      hits.k = k;
      for (std::size_t g = 0; g < queries.rows; ++g) {
        for (Id i = 0; i < all.size(); ++i)
          all[i] = {-inner_product(keys.view(), i, queries.row(g)), i};
        std::sort(all.begin(), all.end());
        for (std::size_t r = 0; r < k; ++r) {
          hits.ids.push_back(all[r].second);
          hits.scores.push_back(-all[r].first);
        }
        hits.count.push_back(k);
      }
    };
  };
  test::give(head.params, Retriever::custom, 20);
  Twins twins(head, 16);
  for (std::size_t i = 0; i < kHorizon + 2; ++i) twins.step();
  EXPECT_EQ(twins.borrowed.plan().retriever, Retriever::custom);
}

TEST(PagedHead, TakesRowsWithAStrideForOnePage) {
  const DecodeHead head = small_head(Dtype::f32, given(Retriever::flat));
  const std::size_t d = head.keys.cols(), dv = head.values.cols(), stride = d + dv;
  Matrix<float> both(kAll, stride);
  for (std::size_t i = 0; i < kAll; ++i) {
    std::copy_n(head.f32_keys.row(i), d, both.row(i));
    std::copy_n(head.f32_values.row(i), dv, both.row(i) + d);
  }
  const AnyMatrixView keys = {both.data(), Dtype::f32, kAll, d, stride};
  const AnyMatrixView values = {both.data() + d, Dtype::f32, kAll, dv, stride};
  HeadCache owned = head.prefill(kPrompt, head.params);
  const Id page = 0;
  HeadCache borrowed =
      HeadCache::borrow(RowPages::of_rows(keys), RowPages::of_rows(values), {&page, 1}, kPrompt,
                        head.queries.view().slice(0, kPrompt * kGroup), kGroup, head.params, {1});
  DecodeScratch scratch;
  for (std::size_t i = 0; i < kHorizon + 2; ++i) {
    Matrix<float> out(kGroup, dv);
    borrowed.step_announced(AnyMatrixView::of(head.at(kPrompt + i)), {}, scratch, out.data());
    ASSERT_EQ(elements(out), elements(head.step(owned, scratch)));
  }
}

TEST(PagedHead, TakesQueriesAsTheyAreStored) {
  for (const Dtype dtype : {Dtype::f16, Dtype::bf16}) {
    const DecodeHead head = small_head(dtype, given(Retriever::flat));
    Twins twins(head, 16);
    const AnyMatrix asked = test::stored_as(twins.queries(kPrompt, 3), dtype);
    const Matrix<float> widened = to_f32(asked.view());
    const auto pages = twins.write(kPrompt, 1);
    Matrix<float> out(kGroup, head.values.cols()), wanted = out;
    twins.borrowed.step_announced(asked.view().slice(0, kGroup), pages, twins.scratch, out.data());
    twins.owned.step(widened.view().slice(0, kGroup), head.f32_keys.row(kPrompt),
                     head.f32_values.row(kPrompt), twins.scratch, wanted.data());
    EXPECT_EQ(elements(out), elements(wanted));
    twins.owned.attend(asked.view().slice(kGroup, kGroup), twins.scratch, out.data());
    twins.owned.attend(widened.view().slice(kGroup, kGroup), twins.scratch, wanted.data());
    EXPECT_EQ(elements(out), elements(wanted));
    const AnyMatrixView whole = {nullptr, Dtype::i8, kGroup, head.keys.cols(), head.keys.cols()};
    test::expect_error(kInvalid, {"i8"},
                       [&] { twins.borrowed.attend(whole, twins.scratch, out.data()); });
  }
}

TEST(PagedHead, CopiesNeitherKeysNorValues) {
  for (const Retriever retriever : {Retriever::none, Retriever::flat, Retriever::sketch}) {
    const DecodeHead head = small_head(Dtype::f16, given(retriever));
    Twins twins(head, 16);
    twins.append(kHorizon);
    twins.step();
    const std::size_t tokens = twins.owned.tokens(), row = 2 * (20 + 12);
    const std::size_t pages = twins.memory.table().size();
    const std::size_t recent = tokens - twins.owned.indexed() - 4 - 3;
    // In the place of each token its slot, of sink and recent ones once for key and value.
    EXPECT_EQ(twins.owned.bytes() - twins.borrowed.bytes(),
              tokens * (row - sizeof(Id)) - (recent + 4 + 3 + pages) * sizeof(Id));
  }
}

TEST(PagedHead, OutlivesWhoGaveItTheMemory) {
  const DecodeHead head = small_head(Dtype::f16, given(Retriever::flat));
  HeadCache copy;
  std::weak_ptr<const void> memory;
  {
    Twins twins(head, 16);
    copy = twins.borrowed;
    memory = twins.memory.keys().owner;
  }
  EXPECT_FALSE(memory.expired());
  DecodeScratch scratch;
  Matrix<float> out(kGroup, head.values.cols());
  copy.attend(head.at(kPrompt), scratch, out.data());
  copy = HeadCache();
  EXPECT_TRUE(memory.expired());
  test::expect_error(kInvalid, {"the HeadCache is empty"}, [&] { copy.announce(1); });
}

TEST(PagedHead, SharesPagesWithACopyThatGoesItsOwnWay) {
  const DecodeHead head = small_head(Dtype::f16, given(Retriever::flat));
  Twins twins(head, 16);
  HeadCache fork = twins.borrowed;
  const std::vector<std::byte> before = fork.to_bytes();
  twins.turn(kHorizon);
  twins.step();
  EXPECT_TRUE(fork.to_bytes() == before);
  EXPECT_EQ(fork.tokens(), kPrompt);
}

TEST(PagedHead, OfAFileHasTokensOfItsOwn) {
  const DecodeHead head = small_head(Dtype::f16, given(Retriever::sketch));
  Twins twins(head, 16);
  HeadCache loaded = HeadCache::from_bytes(twins.borrowed.to_bytes());
  DecodeScratch scratch;
  EXPECT_EQ(elements(head.step(loaded, scratch)), elements(head.step(twins.owned, scratch)));
}

TEST(PagedHead, AreManyAtOnce) {
  const DecodeHead head = small_head(Dtype::f16, given(Retriever::flat));
  Twins one(head, 16), other(head, 64);
  const std::vector<Id> pages[] = {one.write(kPrompt, 20), other.write(kPrompt, 20)};
  const std::vector<std::span<const Id>> each = {pages[0], pages[1]};
  const std::vector<HeadCache*> heads = {&one.borrowed, &other.borrowed};
  DecodePool pool(2);
  // The second head has no such page: neither takes a token.
  const std::vector<Id> nowhere = {40000};
  const std::vector<std::span<const Id>> wrong = {pages[0], nowhere};
  test::expect_error(kInvalid, {"page 40000"}, [&] { announce_heads(heads, 20, wrong, pool); });
  EXPECT_EQ(one.borrowed.tokens(), kPrompt);
  announce_heads(heads, 20, each, pool);
  Matrix<float> queries(2 * kGroup, head.keys.cols());
  for (std::size_t g = 0; g < 2 * kGroup; ++g)
    std::copy_n(head.at(kPrompt + 19).row(g % kGroup), head.keys.cols(), queries.row(g));
  const AnyMatrix asked = test::stored_as(queries, Dtype::f16);
  Matrix<float> out(2 * kGroup, head.values.cols()), wanted(kGroup, head.values.cols());
  attend_heads(heads, asked.view(), pool, out.data());
  one.owned.append(head.f32_keys.view().slice(kPrompt, 20),
                   head.f32_values.view().slice(kPrompt, 20));
  one.owned.attend(asked.view().slice(0, kGroup), one.scratch, wanted.data());
  for (std::size_t i = 0; i < 2; ++i)
    for (std::size_t e = 0; e < kGroup * head.values.cols(); ++e)
      EXPECT_EQ(out.row(i * kGroup)[e], wanted.data()[e]);
  test::expect_error(kInvalid, {"pages are of 1 heads, there are 2"},
                     [&] { announce_heads(heads, 1, std::span(each).first(1), pool); });
}

}  // namespace
}  // namespace keyseek
