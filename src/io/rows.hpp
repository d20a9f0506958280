/// Rows of a file that need converting, a block at a time, so that a large file never
/// lies in memory twice.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "file/atomic_file.hpp"
#include "file/input_file.hpp"
#include "keyseek/matrix.hpp"

namespace keyseek::io {

inline constexpr std::size_t kBlockElements = std::size_t{1} << 18;

/// Calls convert(i, element) for each of `count` elements of type From at `offset`.
template <class From, class Convert>
void for_each_element(const InputFile& file, std::uint64_t offset, std::size_t count,
                      Convert convert) {
  std::vector<From> block(std::min(count, kBlockElements));
  for (std::size_t first = 0; first < count; first += block.size()) {
    const auto part = std::span(block).first(std::min(block.size(), count - first));
    file.read_at(offset + first * sizeof(From), std::as_writable_bytes(part));
    for (std::size_t i = 0; i < part.size(); ++i) convert(first + i, part[i]);
  }
}

/// How a file stores a row.
enum class RowElement { f32, f16, i8, u8 };
struct RowFormat {
  RowElement element = RowElement::f32;
  bool counted = false;  ///< a u32 dimension before each row
};

/// Appends the rows, without gaps: f32 and u8 of any type, f16 of floats, i8 of i8. Throws
/// Error(invalid_argument) for another, and for a value that f16 cannot hold or that is no u8.
void write_rows(AtomicFile& file, AnyMatrixView vectors, RowFormat format);

}  // namespace keyseek::io
