/// Made vectors, the same on every machine. They show what a change does to the code's speed;
/// they say nothing about recall or speed on real attention vectors.
#pragma once

#include <cstddef>
#include <cstdint>

#include "keyseek/matrix.hpp"
#include "keyseek/rope.hpp"

namespace keyseek::bench {

/// Rows of independent numbers with mean 0 and standard deviation 1, roughly normal.
[[nodiscard]] Matrix<float> made_rows(std::size_t rows, std::size_t cols, std::uint64_t seed);

/// The same vectors in another element type; i8 holds them times 32.
[[nodiscard]] AnyMatrix stored_as(Dtype dtype, MatrixView<float> rows);

/// Keys, and steps of queries that come from elsewhere than the keys: they vary in few
/// directions, the heads of a step resemble each other, and so do consecutive steps.
struct MadeProblem {
  Matrix<float> keys;
  TrainingQueries training;
  Matrix<float> steps;  ///< [steps * group, d], later than all of `training`
};
[[nodiscard]] MadeProblem made_problem(std::size_t n, std::size_t d, std::size_t group);

}  // namespace keyseek::bench
