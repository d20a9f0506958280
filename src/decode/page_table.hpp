/// The pages that a request has been given, and where in memory its tokens are.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "keyseek/pages.hpp"

namespace keyseek {

/// Grows as an engine gives pages, and shrinks when tokens are taken back.
class PageTable {
 public:
  /// Of pages that were validated; `table` are those of the request. Throws Error as require_new.
  PageTable(const RowPages& pages, std::span<const Id> table);

  /// Throws Error when one of them is not there, or named twice, here or before.
  void require_new(std::span<const Id> pages) const;
  /// Throws Error when they do not have room for so many tokens.
  void require_room(std::size_t tokens, std::span<const Id> more = {}) const;
  void make_room(std::size_t pages);              ///< for so many more
  void add(std::span<const Id> pages) noexcept;   ///< into the room that was made
  void undo_add() noexcept;                       ///< the last one
  void keep_tokens(std::size_t tokens) noexcept;  ///< the pages that have them
  [[nodiscard]] std::size_t bytes() const noexcept { return table_.size() * sizeof(Id); }
  /// Of tokens [first, first + count), where `more` pages follow those of the table.
  [[nodiscard]] AlignedVector<Id> slots(std::size_t first, std::size_t count,
                                        std::span<const Id> more = {}) const;

 private:
  std::vector<Id> table_;
  std::size_t before_ = 0;  ///< pages before the last add
  std::size_t pages_, page_rows_;
  std::size_t slots_;  ///< from a page to the next
};

}  // namespace keyseek
