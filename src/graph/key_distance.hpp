/// Distances between keys, on their codes.
///
/// The codes' space is the keys' space with each channel scaled to what queries can see of
/// it, so that near keys there are keys that the same queries want.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "keyseek/key_store.hpp"

namespace keyseek {

class KeyDistance {
 public:
  /// `store` is in rows and outlives this.
  explicit KeyDistance(const KeyStore& store, const Execution& run = {});

  /// Squared L2 distances from key `from` to the keys `to`, into out[to.size()]: all times one
  /// power of two where they would not fit f32. Thread-safe.
  void measure(Id from, std::span<const Id> to, float* out) const;

 private:
  void inner_products(Id from, std::span<const Id> to, float* out) const;

  const KeyStore& store_;
  double unit_ = 1.0;         ///< of squared distances
  std::vector<float> norms_;  ///< squared
};

}  // namespace keyseek
