/// Reads files whose rows each begin with their dimension.
#include "io/vecs.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "base/fail.hpp"
#include "io/rows.hpp"
#include "io/shape.hpp"

namespace keyseek::io {
namespace {

/// What the first row and the file's size say.
Shape shape_of(const InputFile& file, std::size_t element_size) {
  const std::string where = file.path().string();
  std::uint32_t cols = 0;
  if (file.size() < sizeof(cols)) {
    fail(ErrorCode::corrupt, "{}: {} bytes, shorter than the dimension of a row", where,
         file.size());
  }
  file.read_at(0, std::as_writable_bytes(std::span(&cols, 1)));
  const std::uint64_t row = sizeof(cols) + std::uint64_t{cols} * element_size;
  if (cols == 0 || file.size() % row != 0) {
    fail(ErrorCode::corrupt,
         "{}: {} bytes are no whole number of rows of dimension {} with elements of {} bytes",
         where, file.size(), cols, element_size);
  }
  const Shape shape{file.size() / row, cols};
  (void)byte_size(where, shape, element_size);
  return shape;
}

/// Calls convert(row, elements) for every row, a block at a time.
template <class Element, class Convert>
void for_each_row(const InputFile& file, Shape shape, Convert convert) {
  const std::size_t row_bytes = sizeof(std::uint32_t) + shape.cols * sizeof(Element);
  const std::size_t per_block = std::clamp<std::size_t>(kBlockElements / shape.cols, 1, shape.rows);
  std::vector<std::byte> block(per_block * row_bytes);
  std::vector<Element> elements(shape.cols);
  for (std::size_t first = 0; first < shape.rows; first += per_block) {
    const std::size_t count = std::min(per_block, static_cast<std::size_t>(shape.rows) - first);
    file.read_at(first * row_bytes, std::span(block).first(count * row_bytes));
    for (std::size_t i = 0; i < count; ++i) {
      const std::byte* const row = block.data() + i * row_bytes;
      std::uint32_t cols = 0;
      std::memcpy(&cols, row, sizeof(cols));
      if (cols != shape.cols) {
        fail(ErrorCode::corrupt, "{}: row {} has dimension {}, but row 0 has {}",
             file.path().string(), first + i, cols, shape.cols);
      }
      std::memcpy(elements.data(), row + sizeof(cols), shape.cols * sizeof(Element));
      convert(first + i, std::as_const(elements));
    }
  }
}

template <class Element>
AnyMatrix read_as_floats(const InputFile& file) {
  const Shape shape = shape_of(file, sizeof(Element));
  AlignedVector<std::byte> bytes(shape.rows * shape.cols * sizeof(float));
  auto* const out = reinterpret_cast<float*>(bytes.data());
  for_each_row<Element>(file, shape, [&](std::size_t i, const std::vector<Element>& row) {
    std::transform(row.begin(), row.end(), out + i * shape.cols,
                   [](Element x) { return static_cast<float>(x); });
  });
  return {SharedArray<std::byte>(std::move(bytes)), Dtype::f32, shape.rows, shape.cols};
}

}  // namespace

AnyMatrix read_fvecs(const InputFile& file) { return read_as_floats<float>(file); }

AnyMatrix read_bvecs(const InputFile& file) { return read_as_floats<std::uint8_t>(file); }

Matrix<Id> read_ivecs(const InputFile& file) {
  const Shape shape = shape_of(file, sizeof(std::int32_t));
  Matrix<Id> ids(shape.rows, shape.cols);
  for_each_row<std::int32_t>(file, shape, [&](std::size_t i, const auto& row) {
    for (std::size_t j = 0; j < row.size(); ++j) {
      if (row[j] < -1) {
        fail(ErrorCode::corrupt, "{}: row {} holds {}, which is no id", file.path().string(), i,
             row[j]);
      }
      ids.row(i)[j] = row[j] == -1 ? kNoId : static_cast<Id>(row[j]);
    }
  });
  return ids;
}

}  // namespace keyseek::io
