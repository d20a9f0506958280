// Where pages lie in memory, and what is refused: pages that overlap, or reach beyond it.
#include <cstdint>
#include <utility>

#include "base/fail.hpp"
#include "keyseek/pages.hpp"

namespace keyseek {

RowPages RowPages::of_blocks(std::span<const std::byte> memory, Dtype dtype, const Block& block,
                             std::size_t head, std::shared_ptr<const void> owner) {
  require(block.page_rows > 0 && block.heads > 0 && block.cols > 0,
          "a block is {} x {} x {}: no side may be 0", block.page_rows, block.heads, block.cols);
  require(head < block.heads, "head is {}, a page has {}", head, block.heads);
  const std::size_t row = block.heads * block.cols, page = block.page_rows * row;
  const std::size_t page_bytes = page * size_of(dtype);
  require(
      !memory.empty() && memory.size() % page_bytes == 0,
      "memory has {} bytes, a page of {} tokens, {} heads and {} elements of {} has {}: the last "
      "one is shorter",
      memory.size(), block.page_rows, block.heads, block.cols, to_string(dtype), page_bytes);
  return {.memory = memory.subspan(head * block.cols * size_of(dtype)),
          .dtype = dtype,
          .pages = memory.size() / page_bytes,
          .page_rows = block.page_rows,
          .cols = block.cols,
          .row_stride = row,
          .page_stride = page,
          .owner = std::move(owner)};
}

RowPages RowPages::of_rows(AnyMatrixView rows, std::shared_ptr<const void> owner) {
  require(rows.slots == nullptr, "rows are borrowed themselves");
  const std::size_t elements = rows.rows == 0 ? 0 : (rows.rows - 1) * rows.stride + rows.cols;
  return {.memory = {static_cast<const std::byte*>(rows.data), elements * size_of(rows.dtype)},
          .dtype = rows.dtype,
          .pages = 1,
          .page_rows = rows.rows,
          .cols = rows.cols,
          .row_stride = rows.stride,
          .page_stride = rows.rows * rows.stride,
          .owner = std::move(owner)};
}

void RowPages::validate(std::string_view argument) const {
  require(dtype != Dtype::i8, "{} are i8: int8 has no scale here", argument);
  require(pages > 0 && page_rows > 0 && cols > 0,
          "{} have {} pages of {} rows of {} elements: none may be 0", argument, pages, page_rows,
          cols);
  require(row_stride >= cols, "{} have a row_stride of {}, a row has {} elements", argument,
          row_stride, cols);
  require(page_stride % row_stride == 0,
          "{} have a page_stride of {}, must be a multiple of the row_stride, {}", argument,
          page_stride, row_stride);
  const std::size_t slots = page_stride / row_stride;
  require(pages == 1 || slots >= page_rows,
          "{} have a page_stride with room for {} rows, must have {}", argument, slots, page_rows);
  require(pages < kNoId && page_rows < kNoId && slots < kNoId && pages * slots < kNoId,
          "{} have {} pages of {} slots, at most {} slots can be numbered", argument, pages, slots,
          kNoId - 1);
  // Of the last row, the last element; written so that no stride overflows.
  const std::size_t last = (pages - 1) * slots + page_rows - 1;
  const std::size_t room = memory.size() / size_of(dtype);
  require(cols <= room && last <= (room - cols) / row_stride,
          "{} have {} pages of {} rows, but the memory's {} bytes end before the last row of {} "
          "elements of {}",
          argument, pages, page_rows, memory.size(), cols, to_string(dtype));
  // NOLINTNEXTLINE(cppcoreguidelines-pro-type-reinterpret-cast): an address is a number
  require(reinterpret_cast<std::uintptr_t>(memory.data()) % size_of(dtype) == 0,
          "{} are in memory that is not aligned for {}", argument, to_string(dtype));
}

}  // namespace keyseek
