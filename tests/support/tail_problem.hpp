/// Keys, values and queries whose attention is diffuse, observed for a tail.
#pragma once

#include "keyseek/tail.hpp"
#include "support/ood_data.hpp"

namespace keyseek::test {

/// Attention of any number of queries over all keys.
inline Partial attend_many(MatrixView<float> queries, AnyMatrixView keys, ValuesView values,
                           Logits logits) {
  AttendScratch scratch;
  Partial all, part;
  all.reset(queries.rows, values.rows.cols);
  for (std::size_t q = 0; q < queries.rows; ++q) {
    attend(queries.slice(q, 1), keys, values, logits, scratch, part);
    std::copy_n(part.out.data(), values.rows.cols, all.out.row(q));
    all.lse[q] = part.lse[0];
  }
  return all;
}

struct TailShape {
  std::size_t n = 1500;
  std::size_t group = 2;
  Dtype dtype = Dtype::f32;
  bool value_scales = false;  ///< values in int8, with a scale each
  std::size_t train_steps = 128;
  std::size_t held_out_steps = 48;
};

/// Keys in topics, values that follow the keys; the first kExact tokens are always attended.
struct TailProblem {
  static constexpr std::size_t kExact = 20, kDim = 32, kValueDim = 24;
  static constexpr float kScale = 0.5F;

  explicit TailProblem(const TailShape& s = {}) : shape(s) {
    data = make_ood_data({.n = s.n + kExact,
                          .d = kDim,
                          .group = s.group,
                          .train_steps = s.train_steps,
                          .tuning_runs = 0,
                          .test_steps = s.held_out_steps});
    const Matrix<float> map = normal_matrix(kDim, kValueDim, 11);
    Matrix<float> plain = normal_matrix(s.n + kExact, kValueDim, 12);
    for (std::size_t i = 0; i < plain.rows(); ++i) {
      for (std::size_t c = 0; c < kValueDim; ++c) {
        float& value = plain.row(i)[c];
        value *= 0.1F;
        for (std::size_t j = 0; j < kDim; ++j)
          value += 0.2F * map.row(j)[c] * (data.keys.row(i)[j] - 2.0F);
      }
    }
    if (s.value_scales) {
      for (std::size_t i = 0; i < plain.rows(); ++i) {
        const std::size_t divisor = 20 + i % 40;
        scales.push_back(1.0F / static_cast<float>(divisor));
        for (std::size_t c = 0; c < kValueDim; ++c) plain.row(i)[c] *= static_cast<float>(divisor);
      }
    }
    all_keys = stored_as(data.keys, s.dtype);
    all_values = stored_as(plain, s.value_scales ? Dtype::i8 : s.dtype);
  }

  [[nodiscard]] AnyMatrixView keys() const { return all_keys.view().slice(kExact, shape.n); }
  [[nodiscard]] ValuesView values() const { return part(kExact, shape.n); }
  [[nodiscard]] Partial exact(MatrixView<float> queries) const {
    return attend_many(queries, all_keys.view().slice(0, kExact), part(0, kExact), kScale);
  }
  [[nodiscard]] Observations seen(MatrixView<float> queries, std::size_t top = 64,
                                  const Execution& run = {}) const {
    return observe(queries, shape.group, exact(queries), keys(), values(), kScale, {.top = top},
                   run);
  }
  [[nodiscard]] Observations train(std::size_t top = 64) const {
    return seen(data.training.train, top);
  }
  [[nodiscard]] Observations held_out() const { return seen(data.test); }

  TailShape shape;
  OodData data;
  AnyMatrix all_keys, all_values;
  std::vector<float> scales;

 private:
  [[nodiscard]] ValuesView part(std::size_t first, std::size_t count) const {
    return {all_values.view().slice(first, count), scales.empty() ? nullptr : &scales[first]};
  }
};

inline double mean(const std::vector<float>& values) {
  double sum = 0;
  for (const float x : values) sum += double{x};
  return sum / static_cast<double>(values.size());
}

}  // namespace keyseek::test
