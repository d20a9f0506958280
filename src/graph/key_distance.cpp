#include "graph/key_distance.hpp"

#include "base/fail.hpp"
#include "base/parallel.hpp"
#include "score/kernels.hpp"

namespace keyseek {
namespace {

/// A key's code in the role of a query.
struct KeyAsQuery {
  std::vector<std::int8_t> codes;
  float scale = 0;
  std::int32_t correction = 0;

  KeyAsQuery(const KeyStore& store, Id key) : codes(store.code_cols()), scale(store.scales()[key]) {
    const std::uint8_t* row = store.codes() + key * store.code_cols();
    std::int32_t sum = 0;
    for (std::size_t j = 0; j < codes.size(); ++j) {
      codes[j] = static_cast<std::int8_t>(row[j] - 128);
      sum += codes[j];
    }
    correction = 128 * sum;
  }
  [[nodiscard]] CodeTile tile() const {
    return {codes.data(), &scale, &correction, 1, codes.size()};
  }
};

void inner_products(const KeyStore& store, Id from, std::span<const Id> to, float* out) {
  const KeyAsQuery query(store, from);
  kernels().score_codes(store.codes(), store.scales(), to.data(), to.size(), query.tile(), out,
                        to.size());
}

}  // namespace

KeyDistance::KeyDistance(const KeyStore& store, const Execution& run)
    : store_(store), norms_(store.size()) {
  require(store.layout() == CodeLayout::rows, "the store's codes are in blocks, not in rows");
  parallel_for(store.size(), 1024, {run.threads, {}}, "",
               [&](std::size_t begin, std::size_t end, int) {
                 for (std::size_t i = begin; i < end; ++i) {
                   const auto key = static_cast<Id>(i);
                   inner_products(store, key, {&key, 1}, &norms_[i]);
                 }
               });
}

void KeyDistance::measure(Id from, std::span<const Id> to, float* out) const {
  inner_products(store_, from, to, out);
  for (std::size_t i = 0; i < to.size(); ++i) out[i] = norms_[from] + norms_[to[i]] - 2.0F * out[i];
}

}  // namespace keyseek
