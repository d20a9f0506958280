/// Euclidean distance and cosine by inner products of other vectors.
#include "keyseek/metric.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <tuple>
#include <utility>
#include <vector>

#include "base/fail.hpp"

namespace keyseek {
namespace {

constexpr std::array<std::string_view, 3> kNames = {"ip", "l2", "cosine"};

double power(const float* row, std::size_t d) {
  double sum = 0;
  for (std::size_t j = 0; j < d; ++j) sum += double{row[j]} * double{row[j]};
  return sum;
}

/// Standard deviation of half the squared length of the keys.
double spread(AnyMatrixView keys) {
  std::vector<float> row(keys.cols);
  double sum = 0, squares = 0;
  for (std::size_t i = 0; i < keys.rows; ++i) {
    keys.copy_row(i, row.data());
    const double half = power(row.data(), keys.cols) / 2;
    sum += half;
    squares += half * half;
  }
  const auto n = static_cast<double>(keys.rows);
  return std::sqrt(std::max(0.0, squares / n - sum / n * (sum / n)));
}

float checked(double x, std::size_t row, std::string_view argument) {
  const auto narrow = static_cast<float>(x);
  require(std::isfinite(narrow), "{}: row {} is too long for its squared length to fit f32: scale",
          argument, row);
  return narrow;
}

}  // namespace

std::string_view to_string(Metric metric) noexcept {
  return kNames[static_cast<std::size_t>(metric)];
}

Metric metric_of(std::string_view name, std::string_view argument) {
  const auto found = std::find(kNames.begin(), kNames.end(), name);
  require(found != kNames.end(), "{} is '{}', must be one of ip, l2, cosine", argument, name);
  return static_cast<Metric>(found - kNames.begin());
}

MetricSpace MetricSpace::of(Metric metric, AnyMatrixView keys) {
  if (metric != Metric::l2) return of(metric, 1.0);
  const double deviation = spread(keys);
  const bool usable = std::isfinite(deviation) && deviation > 0;
  return of(metric, usable ? std::exp2(std::round(std::log2(deviation) / 2)) : 1.0);
}

MetricSpace MetricSpace::of(Metric metric, double w) {
  require(static_cast<std::size_t>(metric) < kNames.size(), "metric is {}, which is none",
          static_cast<int>(metric));
  require(std::isfinite(w) && w > 0, "w is {}, must be positive", w);
  MetricSpace space;
  space.metric_ = metric;
  space.w_ = w;
  return space;
}

AnyMatrix MetricSpace::keys(AnyMatrixView given, std::string_view argument) const {
  if (metric_ == Metric::ip) return AnyMatrix::copy_of(given);
  require_finite(given, argument);
  const std::size_t d = given.cols, cols = d + extra_dim();
  AlignedVector<std::byte> bytes(given.rows * cols * sizeof(float));
  for (std::size_t i = 0; i < given.rows; ++i) {
    auto* const row = reinterpret_cast<float*>(bytes.data()) + i * cols;
    given.copy_row(i, row);
    const double squares = power(row, d);
    if (metric_ == Metric::l2) {
      row[d] = checked(-squares / (2 * w_), i, argument);
      continue;
    }
    require(squares > 0, "{}: row {} is zero, which has no cosine", argument, i);
    const double length = std::sqrt(squares);
    std::transform(row, row + d, row, [length](float x) { return static_cast<float>(x / length); });
  }
  return {SharedArray<std::byte>(std::move(bytes)), Dtype::f32, given.rows, cols};
}

Matrix<float> MetricSpace::queries(MatrixView<float> given, std::string_view argument) const {
  require_finite(AnyMatrixView::of(given), argument);
  Matrix<float> out(given.rows, given.cols + extra_dim());
  for (std::size_t i = 0; i < given.rows; ++i) {
    std::copy_n(given.row(i), given.cols, out.row(i));
    if (metric_ == Metric::l2) out.row(i)[given.cols] = static_cast<float>(w_);
    require(metric_ != Metric::cosine || power(given.row(i), given.cols) > 0,
            "{}: row {} is zero, which has no cosine", argument, i);
  }
  return out;
}

void MetricSpace::convert(std::span<const float> query, AnyMatrixView keys, std::span<Id> ids,
                          std::span<float> scores) const {
  if (metric_ == Metric::ip) return;
  const auto count =
      static_cast<std::size_t>(std::find(ids.begin(), ids.end(), kNoId) - ids.begin());
  if (metric_ == Metric::cosine) {
    const double length = std::sqrt(power(query.data(), query.size()));
    for (float& score : scores.first(count)) score = static_cast<float>(score / length);
    return;
  }
  std::vector<float> key(keys.cols);
  std::vector<std::pair<float, Id>> row;
  for (const Id id : ids.first(count)) {
    keys.copy_row(id, key.data());
    double distance = 0;
    for (std::size_t j = 0; j < query.size(); ++j) {
      const double off = double{query[j]} - double{key[j]};
      distance += off * off;
    }
    row.emplace_back(static_cast<float>(distance), id);
  }
  std::sort(row.begin(), row.end());
  std::fill(scores.begin(), scores.end(), std::numeric_limits<float>::infinity());
  for (std::size_t i = 0; i < count; ++i) std::tie(scores[i], ids[i]) = row[i];
}

}  // namespace keyseek
