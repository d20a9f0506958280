/// Makes vectors of random numbers for the micro benchmarks.
#include "made_data.hpp"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "base/random.hpp"

namespace keyseek::bench {
namespace {

/// Sum of twelve uniform numbers, less its mean: variance 1.
float roughly_normal(Random& random) {
  double sum = -6.0;
  for (int i = 0; i < 12; ++i) sum += random.uniform();
  return static_cast<float>(sum);
}

template <class T, class Convert>
AnyMatrix converted(Dtype dtype, MatrixView<float> rows, const Convert& convert) {
  AlignedVector<std::byte> bytes(rows.rows * rows.cols * sizeof(T));
  for (std::size_t i = 0; i < rows.rows * rows.cols; ++i) {
    const T element = convert(rows.row(i / rows.cols)[i % rows.cols]);
    std::memcpy(bytes.data() + i * sizeof(T), &element, sizeof(T));
  }
  return {SharedArray(std::move(bytes)), dtype, rows.rows, rows.cols};
}

/// A point that wanders through a few directions of the space, step by step.
class Wanderer {
 public:
  Wanderer(std::size_t d, std::uint64_t seed)
      : random_(seed), directions_(made_rows(kDirections, d, seed + 1)), place_(kDirections) {}

  /// The queries of one step, into `group` rows.
  void step(float* rows, std::size_t group) {
    constexpr float kKept = 0.9F, kFresh = 0.436F, kOwn = 0.3F;  // kKept^2 + kFresh^2 = 1
    const std::size_t d = directions_.cols();
    for (float& x : place_) x = kKept * x + kFresh * roughly_normal(random_);
    for (std::size_t g = 0; g < group; ++g) {
      float* row = rows + g * d;
      std::fill_n(row, d, 0.0F);
      for (std::size_t r = 0; r < kDirections; ++r) {
        const float along = place_[r] + kOwn * roughly_normal(random_);
        for (std::size_t j = 0; j < d; ++j) row[j] += along * directions_.row(r)[j];
      }
    }
  }

 private:
  static constexpr std::size_t kDirections = 8;
  Random random_;
  Matrix<float> directions_;
  std::vector<float> place_;
};

}  // namespace

Matrix<float> made_rows(std::size_t rows, std::size_t cols, std::uint64_t seed) {
  Random random(seed);
  Matrix<float> m(rows, cols);
  for (std::size_t i = 0; i < rows * cols; ++i) m.data()[i] = roughly_normal(random);
  return m;
}

AnyMatrix stored_as(Dtype dtype, MatrixView<float> rows) {
  switch (dtype) {
    case Dtype::f16:
      return converted<Half>(dtype, rows, [](float x) { return to_half(x); });
    case Dtype::bf16:
      return converted<BFloat16>(dtype, rows, [](float x) { return to_bfloat16(x); });
    case Dtype::i8:
      return converted<std::int8_t>(dtype, rows, [](float x) {
        return static_cast<std::int8_t>(std::clamp(std::nearbyint(x * 32), -128.0F, 127.0F));
      });
    case Dtype::f32:
      break;
  }
  return AnyMatrix::copy_of(AnyMatrixView::of(rows));
}

MadeProblem made_problem(std::size_t n, std::size_t d, std::size_t group) {
  constexpr std::size_t kTuningRuns = 4, kTuningSteps = 24, kTrainingSteps = 1024, kSteps = 256;
  MadeProblem problem;
  problem.keys = made_rows(n, d, 1);
  Wanderer wanderer(d, 2);
  const auto walk = [&](std::size_t steps) {
    Matrix<float> rows(steps * group, d);
    for (std::size_t i = 0; i < steps; ++i) wanderer.step(rows.row(i * group), group);
    return rows;
  };
  problem.training.group = group;
  problem.training.tuning_steps = kTuningSteps;
  problem.training.tuning = walk(kTuningRuns * kTuningSteps);
  problem.training.train = walk(kTrainingSteps);
  problem.steps = walk(kSteps);
  return problem;
}

}  // namespace keyseek::bench
