/// Measures distances between keys by their 8-bit codes, one key in the role of a query.
#include "graph/key_distance.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "base/fail.hpp"
#include "base/parallel.hpp"
#include "score/code_tile.hpp"

namespace keyseek {
namespace {

/// A key's code in the role of a query.
struct KeyAsQuery {
  std::vector<std::int8_t> codes;
  float scale = 0;
  std::int32_t correction = 0;

  KeyAsQuery(const KeyStore& store, Id key, double unit)
      : codes(store.code_cols()), scale(static_cast<float>(double{store.scales()[key]} * unit)) {
    const std::uint8_t* row = store.codes() + key * store.code_cols();
    std::int32_t sum = 0;
    for (std::size_t j = 0; j < codes.size(); ++j) {
      codes[j] = static_cast<std::int8_t>(row[j] - 128);
      sum += codes[j];
    }
    correction = static_cast<std::int32_t>(128U * static_cast<std::uint32_t>(sum));
  }
  [[nodiscard]] CodeTile tile() const {
    return {codes.data(), &scale, &correction, 1, codes.size()};
  }
};

/// 1 unless squares of numbers like `largest` leave f32.
double unit_of(float largest) {
  constexpr int kOrdinary = 20;
  const int exponent = std::ilogb(largest);
  return std::abs(exponent) <= kOrdinary ? 1.0 : std::ldexp(1.0, -2 * exponent);
}

}  // namespace

void KeyDistance::inner_products(Id from, std::span<const Id> to, float* out) const {
  const KeyAsQuery query(store_, from, unit_);
  kernels().score_codes(code_rows(store_, to), query.tile(), {out, to.size()});
}

KeyDistance::KeyDistance(const KeyStore& store, const Execution& run)
    : store_(store), norms_(store.size()) {
  require(store.layout() == CodeLayout::rows, "the store's codes are in blocks, not in rows");
  unit_ = unit_of(*std::max_element(store.scales(), store.scales() + store.size()));
  parallel_for(store.size(), 1024, run.silent(), "", [&](std::size_t begin, std::size_t end, int) {
    for (std::size_t i = begin; i < end; ++i) {
      const auto key = static_cast<Id>(i);
      inner_products(key, {&key, 1}, &norms_[i]);
    }
  });
}

void KeyDistance::measure(Id from, std::span<const Id> to, float* out) const {
  inner_products(from, to, out);
  for (std::size_t i = 0; i < to.size(); ++i) out[i] = norms_[from] + norms_[to[i]] - 2.0F * out[i];
}

}  // namespace keyseek
