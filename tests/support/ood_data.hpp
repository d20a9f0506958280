/// A small search problem like attention: clustered keys, queries far from them and near each
/// other, steps of a group that drift from one topic to the next.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>

#include "base/random.hpp"
#include "keyseek/index.hpp"
#include "support/random_data.hpp"

namespace keyseek::test {

struct OodShape {
  std::size_t n = 2000;
  std::size_t d = 32;
  std::size_t group = 2;
  std::size_t train_steps = 600;
  std::size_t tuning_runs = 3;
  std::size_t tuning_steps = 16;
  std::size_t test_steps = 60;
  std::uint64_t seed = 1;
};

struct OodData {
  Matrix<float> keys;
  TrainingQueries training;
  Matrix<float> test;  ///< [test_steps * group, d]

  [[nodiscard]] MatrixView<float> step(std::size_t i) const {
    return test.view().slice(i * training.group, training.group);
  }
  [[nodiscard]] std::size_t steps() const { return test.rows() / training.group; }
};

namespace ood {

/// Queries of consecutive steps. A step wants three topics, of which one is exchanged now and
/// then; the heads of a group weigh them differently.
class Stream {
 public:
  Stream(const Matrix<float>& topics, std::size_t group, std::uint64_t seed)
      : topics_(topics), group_(group), random_(seed), far_(1, topics.cols()) {
    // All queries share a large part that no key has: out of the keys' distribution.
    Random shared(99);
    for (std::size_t j = 0; j < topics.cols(); ++j) far_.row(0)[j] = 1.5F * normal(shared);
    for (std::size_t& topic : active_) topic = random_.below(topics.rows());
  }

  Matrix<float> take(std::size_t steps) {
    Matrix<float> queries(steps * group_, topics_.cols());
    for (std::size_t s = 0; s < steps; ++s) {
      if (random_.uniform() < 0.2) active_[random_.below(3)] = random_.below(topics_.rows());
      for (std::size_t g = 0; g < group_; ++g) fill(queries.row(s * group_ + g), g);
    }
    return queries;
  }

 private:
  void fill(float* query, std::size_t g) {
    for (std::size_t j = 0; j < topics_.cols(); ++j) {
      query[j] = far_.row(0)[j] + 0.3F * normal(random_);
      for (std::size_t a = 0; a < 3; ++a) {
        query[j] += (a == g % 3 ? 3.0F : 1.5F) * topics_.row(active_[a])[j];
      }
    }
  }

  const Matrix<float>& topics_;
  std::size_t group_;
  Random random_;
  Matrix<float> far_;
  std::array<std::size_t, 3> active_{};
};

}  // namespace ood

inline OodData make_ood_data(const OodShape& shape = {}) {
  const std::size_t topic_count = std::max<std::size_t>(2, shape.n / 50);
  Matrix<float> topics = normal_matrix(topic_count, shape.d, shape.seed);
  for (std::size_t i = 0; i < topic_count * shape.d; ++i) {
    topics.data()[i] /= std::sqrt(static_cast<float>(shape.d));
  }
  Random random(shape.seed + 1);
  OodData data;
  data.keys = Matrix<float>(shape.n, shape.d);
  for (std::size_t i = 0; i < shape.n; ++i) {
    const float* topic = topics.row(random.below(topic_count));
    for (std::size_t j = 0; j < shape.d; ++j) {
      data.keys.row(i)[j] = 2.0F + 2.0F * topic[j] + 0.2F * normal(random);
    }
  }
  ood::Stream stream(topics, shape.group, shape.seed + 2);
  data.training.group = shape.group;
  data.training.tuning_steps = shape.tuning_steps;
  data.training.train = stream.take(shape.train_steps);
  data.training.tuning = stream.take(shape.tuning_runs * shape.tuning_steps);
  data.test = stream.take(shape.test_steps);
  return data;
}

}  // namespace keyseek::test
