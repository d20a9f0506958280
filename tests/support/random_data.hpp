/// Random vectors for tests, the same on every platform.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/random.hpp"
#include "keyseek/matrix.hpp"

namespace keyseek::test {

/// Nearly normal, mean 0 and variance 1: a sum of uniforms, since std::log and std::cos may
/// differ in the last bit between platforms.
inline float normal(Random& random) {
  double sum = -6.0;
  for (int i = 0; i < 12; ++i) sum += random.uniform();
  return static_cast<float>(sum);
}

inline Matrix<float> normal_matrix(std::size_t rows, std::size_t cols, std::uint64_t seed) {
  Random random(seed);
  Matrix<float> m(rows, cols);
  for (std::size_t i = 0; i < rows * cols; ++i) m.data()[i] = normal(random);
  return m;
}

/// Whole numbers in [-most, most]: their inner products are exact in f32, and equal ones occur.
inline Matrix<float> whole_matrix(std::size_t rows, std::size_t cols, std::size_t most,
                                  std::uint64_t seed) {
  Random random(seed);
  Matrix<float> m(rows, cols);
  for (std::size_t i = 0; i < rows * cols; ++i) {
    m.data()[i] = static_cast<float>(random.below(2 * most + 1)) - static_cast<float>(most);
  }
  return m;
}

/// The bytes of one value as `dtype` stores it; i8 rounds and saturates. Returns their number.
inline std::size_t store_value(float x, Dtype dtype, std::byte* out) {
  const auto put = [out](auto value) {
    std::memcpy(out, &value, sizeof value);
    return sizeof value;
  };
  switch (dtype) {
    case Dtype::f16:
      return put(to_half(x).bits);
    case Dtype::bf16:
      return put(to_bfloat16(x).bits);
    case Dtype::i8:
      return put(static_cast<std::int8_t>(std::lround(std::fmin(std::fmax(x, -128.0F), 127.0F))));
    case Dtype::f32:
      break;
  }
  return put(x);
}

/// `m` rounded to another element type.
inline AnyMatrix stored_as(MatrixView<float> m, Dtype dtype) {
  AlignedVector<std::byte> bytes(m.rows * m.cols * size_of(dtype));
  std::byte* out = bytes.data();
  for (std::size_t i = 0; i < m.rows; ++i) {
    for (std::size_t j = 0; j < m.cols; ++j) out += store_value(m.row(i)[j], dtype, out);
  }
  return {SharedArray<std::byte>(std::move(bytes)), dtype, m.rows, m.cols};
}

/// Any view of vectors of f32.
inline AnyMatrixView any(MatrixView<float> m) { return AnyMatrixView::of(m); }

}  // namespace keyseek::test
