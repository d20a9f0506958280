/// Keys or values that come and go one by one.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>
#include <vector>

#include "keyseek/matrix.hpp"

namespace keyseek {

/// Writes a row of f32 in a type that is not i8.
void store_row(const float* row, std::size_t cols, Dtype dtype, std::byte* to) noexcept;

/// Rows that grow at the end and shrink at the front, stored in an element type, here or where they
/// are borrowed from.
class StoredRows {
 public:
  StoredRows() = default;
  explicit StoredRows(const AnyMatrix& rows);  ///< copies, but for borrowed ones; not i8

  /// Throws Error(not_finite) that names `name` when an element of a row of f32 is NaN or
  /// infinite, or becomes so as it is stored.
  void check(const float* row, std::string_view name) const;
  void make_room(std::size_t count);                              ///< for so many more rows
  void append(const float* row) noexcept;                         ///< into the room that was made
  void append(Id slot) noexcept;                                  ///< likewise; of borrowed rows
  void drop_back(std::size_t count) noexcept { rows_ -= count; }  ///< the newest rows
  /// All rows but the first `count`.
  [[nodiscard]] StoredRows without_front(std::size_t count) const;
  [[nodiscard]] AnyMatrixView view() const;
  /// Of the same memory as these, which are borrowed, the rows in other slots.
  [[nodiscard]] AnyMatrixView at(std::span<const Id> slots) const;
  [[nodiscard]] std::size_t rows() const noexcept { return rows_; }
  [[nodiscard]] Dtype dtype() const noexcept { return none_.dtype(); }
  /// Those that are here: of borrowed rows, their slots'.
  [[nodiscard]] std::size_t bytes() const noexcept {
    return rows_ * (is_borrowed() ? sizeof(Id) : row_bytes());
  }

 private:
  [[nodiscard]] bool is_borrowed() const noexcept { return none_.is_borrowed(); }
  [[nodiscard]] std::size_t row_bytes() const noexcept {
    return none_.cols() * size_of(none_.dtype());
  }

  AnyMatrix none_;               ///< of no rows: where they are borrowed from, and what they are
  std::vector<std::byte> data_;  ///< the rows, and room for more
  std::vector<Id> slots_;        ///< those of borrowed rows, and room for more
  std::size_t rows_ = 0;
};

}  // namespace keyseek
