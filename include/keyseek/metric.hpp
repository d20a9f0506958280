/// Other measures than the inner product, by vectors whose inner products order keys alike.
///
/// Inside the library there are only inner products. Cosine: keys get length 1, and <q, x> / |q| is
/// the cosine. Euclidean distance: keys get one more coordinate, -|x|^2 / (2 w), and queries w, so
/// that |q - x|^2 = |q|^2 - 2 <(q, w), (x, -|x|^2 / (2 w))>; w is a power of two that makes codes
/// of the new coordinate as fine as those of the others. Both are exact up to the rounding of f32,
/// in which the new keys are stored. An index does this by itself (`Index::build`).
///
/// Values; thread-safe.
///
///     auto space = keyseek::MetricSpace::of(keyseek::Metric::l2, keys);
///     auto lists = keyseek::exact_knn(space.keys(keys).view(), space.queries(queries), {.k = 10});
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "keyseek/matrix.hpp"

namespace keyseek {

enum class Metric : std::uint8_t { ip = 0, l2 = 1, cosine = 2 };
/// "ip", "l2" or "cosine".
[[nodiscard]] std::string_view to_string(Metric metric) noexcept;
/// Throws Error(invalid_argument) that names `argument` when `name` is no metric's.
[[nodiscard]] Metric metric_of(std::string_view name, std::string_view argument);

class MetricSpace {
 public:
  MetricSpace() = default;  ///< of inner products: nothing changes
  /// Fits w to `keys` [n, d].
  [[nodiscard]] static MetricSpace of(Metric metric, AnyMatrixView keys);
  /// As saved. Throws Error(invalid_argument) when w is no positive number.
  [[nodiscard]] static MetricSpace of(Metric metric, double w);

  [[nodiscard]] Metric metric() const noexcept { return metric_; }
  [[nodiscard]] double w() const noexcept { return w_; }
  /// Coordinates beyond those of the vectors as given.
  [[nodiscard]] std::size_t extra_dim() const noexcept { return metric_ == Metric::l2 ? 1 : 0; }

  /// Keys [n, d] as they are to be searched, f32. Throws Error naming `argument` on a key of length
  /// 0 by cosine, or when a number gets too large for f32.
  [[nodiscard]] AnyMatrix keys(AnyMatrixView keys, std::string_view argument = "keys") const;
  /// Queries [m, d] likewise.
  [[nodiscard]] Matrix<float> queries(MatrixView<float> queries,
                                      std::string_view argument = "queries") const;
  /// Turns inner products of one query as given, best first, into what the metric says. By l2
  /// squared distances, computed anew from `keys` as `keys()` made them: smaller is better, equal
  /// ones by smaller id, padded with infinity. By cosine cosines. `ids` are padded with kNoId.
  void convert(std::span<const float> query, AnyMatrixView keys, std::span<Id> ids,
               std::span<float> scores) const;

 private:
  Metric metric_ = Metric::ip;
  double w_ = 1;
};

}  // namespace keyseek
