/// Writes rows block by block, converted to the element type that the file is to have.
#include "io/rows.hpp"

#include <cmath>
#include <cstring>

#include "base/fail.hpp"

namespace keyseek::io {
namespace {

/// `row` as f16 into `out`; `number` is for the error.
void narrow(std::span<const float> row, std::size_t number, std::span<Half> out) {
  constexpr std::uint16_t kInfinity = 0x7c00;
  for (std::size_t j = 0; j < row.size(); ++j) {
    out[j] = to_half(row[j]);
    const bool overflowed = (out[j].bits & 0x7fff) == kInfinity && std::isfinite(row[j]);
    require(!overflowed, "vectors: row {} holds {}, which f16 cannot", number, row[j]);
  }
}

}  // namespace

void write_rows(AtomicFile& file, AnyMatrixView vectors, Dtype as) {
  const bool convertible =
      as == vectors.dtype || as == Dtype::f32 || (as == Dtype::f16 && vectors.dtype != Dtype::i8);
  require(convertible, "vectors are {}, cannot write them as {} into {}", to_string(vectors.dtype),
          to_string(as), file.target().string());
  const std::size_t row_bytes = vectors.cols * size_of(as);
  const std::size_t per_block = std::max<std::size_t>(1, kBlockElements / vectors.cols);
  std::vector<std::byte> block(std::min(per_block, vectors.rows) * row_bytes);
  std::vector<float> wide(vectors.cols);
  std::vector<Half> half(vectors.cols);
  std::size_t filled = 0;
  for (std::size_t i = 0; i < vectors.rows; ++i) {
    const void* source = vectors.row(i);
    if (as != vectors.dtype) {
      vectors.copy_row(i, wide.data());
      if (as == Dtype::f16) narrow(wide, i, half);
      source = as == Dtype::f16 ? static_cast<const void*>(half.data()) : wide.data();
    }
    std::memcpy(block.data() + filled, source, row_bytes);
    filled += row_bytes;
    if (filled < block.size() && i + 1 < vectors.rows) continue;
    file.write(std::span(block).first(filled));
    filled = 0;
  }
}

}  // namespace keyseek::io
