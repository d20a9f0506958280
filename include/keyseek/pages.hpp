/// Keys and values of a head in memory that somebody else owns: an engine's, in pages.
///
/// A *page* holds the rows of `page_rows` tokens that follow one another. A request has a table of
/// pages: token t is in row t % page_rows of page table[t / page_rows]. Pages of one size lie in
/// one piece of memory, in any of these ways:
///
/// - [pages, page_rows, heads, d] (vLLM), or [slots, heads, d], page_rows slots a page (SGLang):
///   `of_blocks`;
/// - rows with any stride, as one page: `of_rows`;
/// - others, [pages, heads, page_rows, d] among them: the members, set by hand.
///
/// Nothing is copied. A head, and each of its copies, reads the rows that it was told of until it
/// is destroyed or truncated to fewer tokens: until then they must stay as they are.
///
///     const keyseek::RowPages keys = keyseek::RowPages::of_blocks(pool, keyseek::Dtype::bf16,
///                                                                 {64, 8, 128}, head, owner);
///     auto cache = keyseek::HeadCache::borrow(keys, values, table, tokens, queries, 4, params);
///     cache.announce(1);  // the token after them has been written
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string_view>

#include "keyseek/matrix.hpp"

namespace keyseek {

/// Where the keys, or the values, of one head are.
struct RowPages {
  std::span<const std::byte>
      memory;                ///< of all pages, from row 0 of page 0 on; may be other heads'
  Dtype dtype = Dtype::f32;  ///< f32, f16 or bf16
  std::size_t pages = 0;
  std::size_t page_rows = 0;    ///< tokens of a page
  std::size_t cols = 0;         ///< d
  std::size_t row_stride = 0;   ///< elements from a row of a page to the next
  std::size_t page_stride = 0;  ///< elements from a page to the next, a multiple of row_stride
  std::shared_ptr<const void> owner = {};  ///< kept alive; null: as long as the caller says

  /// What one page of memory in blocks holds: page_rows x heads rows of cols elements.
  struct Block {
    std::size_t page_rows, heads, cols;
  };
  /// Those of head `head` in memory [pages, page_rows, heads, cols]. Throws Error when `memory` is
  /// not a whole number of pages.
  [[nodiscard]] static RowPages of_blocks(std::span<const std::byte> memory, Dtype dtype,
                                          const Block& block, std::size_t head,
                                          std::shared_ptr<const void> owner = {});
  /// One page of all `rows`, those that come later included; with a stride, and no slots.
  [[nodiscard]] static RowPages of_rows(AnyMatrixView rows, std::shared_ptr<const void> owner = {});

  /// Throws Error that names `argument` and the member that is wrong: a page may not be shorter
  /// than its rows, nor the memory than its pages.
  void validate(std::string_view argument) const;
};

}  // namespace keyseek
