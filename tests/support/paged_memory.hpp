/// An engine's memory: keys and values of two heads in pages, in no order; all else is NaN.
#pragma once

#include <cstddef>
#include <cstring>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "keyseek/pages.hpp"
#include "support/random_data.hpp"

namespace keyseek::test {

/// How a page lies in memory.
enum class Paging { rows_first, heads_first, keys_and_values };

class PagedMemory {
 public:
  static constexpr std::size_t kHeads = 2, kHead = 1;

  /// Pages for so many tokens, in a number that is no multiple of 7.
  [[nodiscard]] static std::size_t pages_for(std::size_t tokens, std::size_t page_rows) {
    const std::size_t pages = (tokens + page_rows - 1) / page_rows;
    return pages % 7 == 0 ? pages + 1 : pages;
  }

  PagedMemory(std::size_t pages, std::size_t page_rows, Paging paging, Dtype dtype, std::size_t d,
              std::size_t dv)
      : paging_(paging), page_rows_(page_rows), free_(pages) {
    // Where keys and values share pages, they share rows, too.
    const std::size_t wide = std::max(d, dv);
    keys_ = made(pages, dtype, d, wide, 0);
    values_ = made(pages, dtype, dv, wide, 1);
    for (std::size_t i = 0; i < pages; ++i)  // each once, since 7 is no factor of their number
      free_[i] = static_cast<Id>(i * 7 % pages);
  }

  [[nodiscard]] const RowPages& keys() const { return keys_; }
  [[nodiscard]] const RowPages& values() const { return values_; }
  [[nodiscard]] const std::vector<Id>& table() const { return table_; }

  /// Writes tokens behind those that are there; returns the pages that were added.
  std::vector<Id> write(AnyMatrixView keys, AnyMatrixView values) {
    const std::size_t had = table_.size();
    for (std::size_t i = 0; i < keys.rows; ++i, ++tokens_) {
      if (tokens_ == table_.size() * page_rows_) {
        table_.push_back(free_.back());
        free_.pop_back();
      }
      put(keys.slice(i, 1), keys_);
      put(values.slice(i, 1), values_);
    }
    return {table_.begin() + static_cast<std::ptrdiff_t>(had), table_.end()};
  }
  /// Takes back all but the first `tokens`; what they held is NaN, and their pages come last again.
  void truncate(std::size_t tokens) {
    for (; tokens_ > tokens; --tokens_) {
      const auto blank = [&](const RowPages& pages) {
        std::memset(place(pages, tokens_ - 1), 0xff, pages.cols * size_of(pages.dtype));
      };
      blank(keys_);
      blank(values_);
    }
    while ((table_.size() - 1) * page_rows_ >= tokens_) {
      free_.push_back(table_.back());
      table_.pop_back();
    }
  }

 private:
  RowPages made(std::size_t pages, Dtype dtype, std::size_t cols, std::size_t wide,
                std::size_t second) {
    const std::size_t size = size_of(dtype);
    const auto blank = [&](std::size_t elements) {
      return std::make_shared<AlignedVector<std::byte>>(elements * size, std::byte{0xff});
    };
    if (paging_ == Paging::rows_first) {
      auto memory = blank(pages * page_rows_ * kHeads * cols);
      return RowPages::of_blocks(*memory, dtype, {page_rows_, kHeads, cols}, kHead, memory);
    }
    RowPages to;
    to.dtype = dtype;
    to.pages = pages;
    to.page_rows = page_rows_;
    to.cols = cols;
    std::size_t first = 0;
    if (paging_ == Paging::heads_first) {
      to.row_stride = cols;
      to.page_stride = kHeads * page_rows_ * cols;
      first = kHead * page_rows_ * cols;
    } else {
      to.row_stride = kHeads * wide;
      to.page_stride = 2 * page_rows_ * to.row_stride;
      first = second * page_rows_ * to.row_stride + kHead * wide;
    }
    // Both in one piece of memory, where pages have both.
    if (!both_ || paging_ == Paging::heads_first) both_ = blank(pages * to.page_stride);
    to.memory = std::span<const std::byte>(*both_).subspan(first * size);
    to.owner = both_;
    return to;
  }

  [[nodiscard]] std::byte* place(const RowPages& pages, std::size_t token) const {
    const std::size_t element =
        table_[token / page_rows_] * pages.page_stride + token % page_rows_ * pages.row_stride;
    return const_cast<std::byte*>(pages.memory.data()) + element * size_of(pages.dtype);
  }
  void put(AnyMatrixView row, const RowPages& pages) {
    std::memcpy(place(pages, tokens_), row.data, row.row_bytes());
  }

  Paging paging_;
  std::size_t page_rows_, tokens_ = 0;
  RowPages keys_, values_;
  std::shared_ptr<AlignedVector<std::byte>> both_;
  std::vector<Id> table_, free_;
};

}  // namespace keyseek::test
