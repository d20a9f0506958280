/// Sizes that files claim, checked before anything is allocated.
#pragma once

#include <cstdint>
#include <string>

#include "base/fail.hpp"

namespace keyseek::io {

/// A matrix as a file describes it.
struct Shape {
  std::uint64_t rows = 0;
  std::uint64_t cols = 0;
};

/// Bytes of the matrix. Throws Error(corrupt) that begins with `where` when a side is 0 or
/// does not fit 32 bits, or when the product does not fit 64.
[[nodiscard]] inline std::uint64_t byte_size(const std::string& where, Shape shape,
                                             std::uint64_t element_size) {
  constexpr std::uint64_t kLimit = 0xffffffff;
  const auto [rows, cols] = shape;
  if (rows == 0 || cols == 0 || rows > kLimit || cols > kLimit) {
    fail(ErrorCode::corrupt, "{}: {} rows of {}, both must be in [1, {}]", where, rows, cols,
         kLimit);
  }
  std::uint64_t bytes = 0;
  if (__builtin_mul_overflow(rows * cols, element_size, &bytes)) {
    fail(ErrorCode::corrupt, "{}: {} rows of {} do not fit 64 bits", where, rows, cols);
  }
  return bytes;
}

}  // namespace keyseek::io
