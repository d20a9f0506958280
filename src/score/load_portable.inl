// Conversions of stored elements to f32, one at a time, for instruction sets without
// half-precision loads.

namespace {

inline float half_bits_to_float(std::uint16_t h);
inline float bfloat_bits_to_float(std::uint16_t b);

template <class Element, class Convert>
inline xsimd::batch<float, Arch> load_converted(const Element* p, Convert convert) {
  constexpr std::size_t lanes = xsimd::batch<float, Arch>::size;
  alignas(64) float values[lanes];
  for (std::size_t i = 0; i < lanes; ++i) values[i] = convert(p[i]);
  return xsimd::batch<float, Arch>::load_aligned(values);
}
inline xsimd::batch<float, Arch> load_f16(const std::uint16_t* p) {
  return load_converted(p, half_bits_to_float);
}
inline xsimd::batch<float, Arch> load_bf16(const std::uint16_t* p) {
  return load_converted(p, bfloat_bits_to_float);
}
inline xsimd::batch<float, Arch> load_i8(const std::int8_t* p) {
  return load_converted(p, [](std::int8_t x) { return static_cast<float>(x); });
}

}  // namespace
