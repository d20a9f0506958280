// Which pages a request may be given, and the slots of its tokens.
#include "decode/page_table.hpp"

#include <algorithm>

#include "base/fail.hpp"

namespace keyseek {

PageTable::PageTable(const RowPages& pages, std::span<const Id> table)
    : pages_(pages.pages),
      page_rows_(pages.page_rows),
      slots_(pages.page_stride / pages.row_stride) {
  require_new(table);
  table_.assign(table.begin(), table.end());
}

void PageTable::require_new(std::span<const Id> pages) const {
  if (pages.empty()) return;
  std::vector<Id> sorted(pages.begin(), pages.end());
  std::sort(sorted.begin(), sorted.end());
  require(sorted.back() < pages_, "pages name page {}, there are {}", sorted.back(), pages_);
  const auto twice = std::adjacent_find(sorted.begin(), sorted.end());
  require(twice == sorted.end(), "pages name page {} twice", twice == sorted.end() ? 0 : *twice);
  for (std::size_t i = 0; i < table_.size(); ++i)
    require(!std::binary_search(sorted.begin(), sorted.end(), table_[i]),
            "pages name page {}, which has tokens from {} on already", table_[i], i * page_rows_);
}

void PageTable::require_room(std::size_t tokens, std::span<const Id> more) const {
  const std::size_t count = table_.size() + more.size();
  require(
      tokens <= count * page_rows_,
      "there are {} tokens, but {} pages have room for {}: name the pages that the others are in",
      tokens, count, count * page_rows_);
}

void PageTable::make_room(std::size_t pages) {
  const std::size_t needed = table_.size() + pages;
  if (needed > table_.capacity()) table_.reserve(std::max(2 * table_.capacity(), needed));
}

void PageTable::add(std::span<const Id> pages) noexcept {
  before_ = table_.size();
  table_.insert(table_.end(), pages.begin(), pages.end());
}

void PageTable::undo_add() noexcept { table_.resize(before_); }

void PageTable::keep_tokens(std::size_t tokens) noexcept {
  table_.resize(std::min(table_.size(), (tokens + page_rows_ - 1) / page_rows_));
}

AlignedVector<Id> PageTable::slots(std::size_t first, std::size_t count,
                                   std::span<const Id> more) const {
  AlignedVector<Id> out(count);
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t token = first + i, page = token / page_rows_;
    const Id id = page < table_.size() ? table_[page] : more[page - table_.size()];
    out[i] = static_cast<Id>(id * slots_ + token % page_rows_);
  }
  return out;
}

}  // namespace keyseek
