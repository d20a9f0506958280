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

/// `row` as u8 into `out`; nothing is rounded.
void to_bytes(std::span<const float> row, std::size_t number, std::span<std::uint8_t> out) {
  for (std::size_t j = 0; j < row.size(); ++j) {
    const bool fits = row[j] >= 0 && row[j] <= 255 && row[j] == std::floor(row[j]);
    require(fits, "vectors: row {} holds {}, must be a whole number from 0 to 255", number, row[j]);
    out[j] = static_cast<std::uint8_t>(row[j]);
  }
}

std::size_t size_of(RowElement element) {
  return element == RowElement::f32 ? 4 : element == RowElement::f16 ? 2 : 1;
}

bool is_stored_so(Dtype dtype, RowElement element) {
  return (dtype == Dtype::f32 && element == RowElement::f32) ||
         (dtype == Dtype::f16 && element == RowElement::f16) ||
         (dtype == Dtype::i8 && element == RowElement::i8);
}

/// Puts rows into bytes, each as the format has it.
class RowWriter {
 public:
  RowWriter(AnyMatrixView vectors, RowFormat format)
      : vectors_(vectors), format_(format), wide_(vectors.cols), half_(vectors.cols) {}

  [[nodiscard]] std::size_t row_bytes() const {
    return (format_.counted ? sizeof(std::uint32_t) : 0) + vectors_.cols * size_of(format_.element);
  }
  void put(std::size_t i, std::byte* out) {
    if (format_.counted) {
      const auto cols = static_cast<std::uint32_t>(vectors_.cols);
      std::memcpy(out, &cols, sizeof(cols));
      out += sizeof(cols);
    }
    const std::size_t bytes = vectors_.cols * size_of(format_.element);
    if (is_stored_so(vectors_.dtype, format_.element)) {
      std::memcpy(out, vectors_.row(i), bytes);
      return;
    }
    vectors_.copy_row(i, wide_.data());
    if (format_.element == RowElement::u8) {
      to_bytes(wide_, i, {reinterpret_cast<std::uint8_t*>(out), wide_.size()});
    } else if (format_.element == RowElement::f16) {
      narrow(wide_, i, half_);
      std::memcpy(out, half_.data(), bytes);
    } else {
      std::memcpy(out, wide_.data(), bytes);
    }
  }

 private:
  AnyMatrixView vectors_;
  RowFormat format_;
  std::vector<float> wide_;
  std::vector<Half> half_;
};

std::string_view name_of(RowElement element) {
  return element == RowElement::f32   ? "f32"
         : element == RowElement::f16 ? "f16"
         : element == RowElement::i8  ? "i8"
                                      : "u8";
}

}  // namespace

void write_rows(AtomicFile& file, AnyMatrixView vectors, RowFormat format) {
  const RowElement as = format.element;
  const bool convertible = is_stored_so(vectors.dtype, as) || as == RowElement::f32 ||
                           as == RowElement::u8 ||
                           (as == RowElement::f16 && vectors.dtype != Dtype::i8);
  require(convertible, "vectors are {}, cannot write them as {} into {}", to_string(vectors.dtype),
          name_of(as), file.target().string());
  RowWriter writer(vectors, format);
  const std::size_t row_bytes = writer.row_bytes();
  const std::size_t per_block = std::max<std::size_t>(1, kBlockElements / vectors.cols);
  std::vector<std::byte> block(std::min(per_block, vectors.rows) * row_bytes);
  std::size_t filled = 0;
  for (std::size_t i = 0; i < vectors.rows; ++i) {
    writer.put(i, block.data() + filled);
    filled += row_bytes;
    if (filled < block.size() && i + 1 < vectors.rows) continue;
    file.write(std::span(block).first(filled));
    filled = 0;
  }
}

}  // namespace keyseek::io
