// Stored keys x f32 queries, for the instruction set of the including unit, which defines
// `Arch` (an xsimd architecture) and `load_f16`, `load_bf16` (kLanes elements to f32).
//
// Everything stands in an unnamed namespace: no symbol of one unit can serve another.

namespace {

using Floats = xsimd::batch<float, Arch>;
constexpr std::size_t kLanes = Floats::size;

inline float half_bits_to_float(std::uint16_t h) {
  const std::uint32_t sign = static_cast<std::uint32_t>(h & 0x8000U) << 16;
  std::uint32_t magnitude = static_cast<std::uint32_t>(h & 0x7fffU) << 13;
  const bool special = (h & 0x7c00U) == 0x7c00U;
  // Multiplying by 2^112 rebiases the exponent and normalises subnormals.
  float value;
  __builtin_memcpy(&value, &magnitude, 4);
  value *= 0x1p112F;
  __builtin_memcpy(&magnitude, &value, 4);
  if (special) magnitude |= 0x7f800000U;
  magnitude |= sign;
  __builtin_memcpy(&value, &magnitude, 4);
  return value;
}

inline float bfloat_bits_to_float(std::uint16_t b) {
  const std::uint32_t bits = static_cast<std::uint32_t>(b) << 16;
  float value;
  __builtin_memcpy(&value, &bits, 4);
  return value;
}

struct LoadF32 {
  using Element = float;
  static Floats many(const float* p) { return Floats::load_unaligned(p); }
  static float one(float x) { return x; }
};
struct LoadF16 {
  using Element = std::uint16_t;
  static Floats many(const std::uint16_t* p) { return load_f16(p); }
  static float one(std::uint16_t x) { return half_bits_to_float(x); }
};
struct LoadBF16 {
  using Element = std::uint16_t;
  static Floats many(const std::uint16_t* p) { return load_bf16(p); }
  static float one(std::uint16_t x) { return bfloat_bits_to_float(x); }
};
struct LoadI8 {
  using Element = std::int8_t;
  static Floats many(const std::int8_t* p) { return load_i8(p); }
  static float one(std::int8_t x) { return static_cast<float>(x); }
};

/// R keys against G queries: each key element is converted once and used G times.
template <class Load, int R, int G>
inline void score_tile(const typename Load::Element* const* rows, const float* queries,
                       std::size_t query_stride, std::size_t d, float* out, std::size_t out_row) {
  Floats sums[R][G];
  for (int r = 0; r < R; ++r)
    for (int g = 0; g < G; ++g) sums[r][g] = Floats(0.0F);
  std::size_t j = 0;
  for (; j + kLanes <= d; j += kLanes) {
    Floats keys[R];
    for (int r = 0; r < R; ++r) keys[r] = Load::many(rows[r] + j);
    for (int g = 0; g < G; ++g) {
      const Floats query =
          Floats::load_unaligned(queries + static_cast<std::size_t>(g) * query_stride + j);
      for (int r = 0; r < R; ++r) sums[r][g] = xsimd::fma(keys[r], query, sums[r][g]);
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int g = 0; g < G; ++g) {
      float sum = xsimd::hadd(sums[r][g]);
      for (std::size_t t = j; t < d; ++t)
        sum += Load::one(rows[r][t]) * queries[static_cast<std::size_t>(g) * query_stride + t];
      out[static_cast<std::size_t>(r) * out_row + static_cast<std::size_t>(g)] = sum;
    }
  }
}

template <class Load, int G>
inline void score_group(const RowsView& keys, const float* queries, std::size_t query_stride,
                        float* out, std::size_t out_row) {
  using Element = typename Load::Element;
  // Enough sums at once to hide an addition's latency, few enough for the registers.
  constexpr int R = G == 1 ? 8 : G == 2 ? 4 : G <= 4 || kLanes == 16 ? 2 : 1;
  constexpr std::size_t kAhead = 8;  // keys whose lines are asked for before they are used
  const auto* data = static_cast<const Element*>(keys.matrix.data);
  const Id* ids = keys.ids;
  const std::size_t n = keys.count, d = keys.matrix.cols, stride = keys.matrix.stride;
  const auto row = [&](std::size_t j) { return data + (ids != nullptr ? ids[j] : j) * stride; };
  const auto prefetch = [&](std::size_t j) {
    const char* line = reinterpret_cast<const char*>(row(j));
    for (std::size_t b = 0; b < d * sizeof(Element); b += 64) __builtin_prefetch(line + b);
  };
  std::size_t j = 0;
  for (; j < n && j < kAhead; ++j) prefetch(j);
  for (j = 0; j + R <= n; j += R) {
    for (std::size_t a = j + kAhead; a < j + kAhead + R && a < n; ++a) prefetch(a);
    const Element* rows[R];
    for (std::size_t r = 0; r < R; ++r) rows[r] = row(j + r);
    score_tile<Load, R, G>(rows, queries, query_stride, d, out + j * out_row, out_row);
  }
  for (; j < n; ++j) {
    const Element* rows[1] = {row(j)};
    score_tile<Load, 1, G>(rows, queries, query_stride, d, out + j * out_row, out_row);
  }
}

template <class Load>
void score_rows(const RowsView& keys, const MatrixView<float>& queries, float* out) {
  const std::size_t group = queries.rows;
  for (std::size_t g = 0; g < group; g += 8) {
    const float* tile = queries.data + g * queries.stride;
    switch (group - g) {
      case 1:
        score_group<Load, 1>(keys, tile, queries.stride, out + g, group);
        break;
      case 2:
        score_group<Load, 2>(keys, tile, queries.stride, out + g, group);
        break;
      case 3:
        score_group<Load, 3>(keys, tile, queries.stride, out + g, group);
        break;
      case 4:
        score_group<Load, 4>(keys, tile, queries.stride, out + g, group);
        break;
      case 5:
        score_group<Load, 5>(keys, tile, queries.stride, out + g, group);
        break;
      case 6:
        score_group<Load, 6>(keys, tile, queries.stride, out + g, group);
        break;
      case 7:
        score_group<Load, 7>(keys, tile, queries.stride, out + g, group);
        break;
      default:
        score_group<Load, 8>(keys, tile, queries.stride, out + g, group);
    }
  }
}

}  // namespace
