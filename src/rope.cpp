/// Turns queries to other positions of a rotary embedding, and draws training queries.
#include "keyseek/rope.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/fail.hpp"
#include "base/random.hpp"

namespace keyseek {

namespace {

std::size_t rotated(const RopeParams& params, std::size_t d) {
  return params.rotary_dim == 0 ? d - params.rotary_first : params.rotary_dim;
}

/// Cosine and sine of every pair's angle for one shift.
struct Rotation {
  explicit Rotation(std::size_t pairs) : cosine(pairs), sine(pairs) {}

  void set(double shift, const std::vector<double>& frequencies) {
    for (std::size_t j = 0; j < frequencies.size(); ++j) {
      cosine[j] = std::cos(shift * frequencies[j]);
      sine[j] = std::sin(shift * frequencies[j]);
    }
  }

  /// Rotates the pairs (first[j * step], second[j * step]).
  void apply(float* first, float* second, std::size_t step) const noexcept {
    for (std::size_t j = 0; j < cosine.size(); ++j) {
      const double x = first[j * step];
      const double y = second[j * step];
      first[j * step] = static_cast<float>(x * cosine[j] - y * sine[j]);
      second[j * step] = static_cast<float>(x * sine[j] + y * cosine[j]);
    }
  }

  std::vector<double> cosine;
  std::vector<double> sine;
};

}  // namespace

void RopeParams::validate(std::size_t d) const {
  require(d > 0, "vectors have dimension 0");
  require(std::isfinite(theta) && theta > 0, "theta is {}, must be positive and finite", theta);
  require(rotary_dim <= d, "rotary_dim is {}, but vectors have dimension {}", rotary_dim, d);
  require(rotary_first <= d - rotary_dim,
          "rotary_first is {} and rotary_dim {}, but vectors have dimension {}", rotary_first,
          rotary_dim, d);
  const std::size_t r = rotated(*this, d);
  require(r > 0, "no element is rotated: rotary_first is {} of {}", rotary_first, d);
  require(r % 2 == 0, "rotary_dim is {} (vectors of dimension {}), must be even", r, d);
  require(frequencies.empty() || frequencies.size() == r / 2,
          "frequencies has {} values, rotary_dim {} needs {}", frequencies.size(), r, r / 2);
  for (std::size_t j = 0; j < frequencies.size(); ++j) {
    require(std::isfinite(frequencies[j]), "frequencies[{}] is {}, must be finite", j,
            frequencies[j]);
  }
}

std::vector<double> rope_frequencies(const RopeParams& params, std::size_t d) {
  params.validate(d);
  if (!params.frequencies.empty()) return params.frequencies;
  const std::size_t r = rotated(params, d);
  std::vector<double> frequencies(r / 2);
  for (std::size_t j = 0; j < frequencies.size(); ++j) {
    const double exponent = static_cast<double>(2 * j) / static_cast<double>(r);
    frequencies[j] = std::pow(params.theta, -exponent);
  }
  return frequencies;
}

void rope_shift(Matrix<float>& queries, std::span<const double> shifts, const RopeParams& params) {
  require(shifts.size() == queries.rows(), "shifts has {} values, but queries has {} rows",
          shifts.size(), queries.rows());
  if (queries.empty()) return;
  const auto frequencies = rope_frequencies(params, queries.cols());
  for (std::size_t i = 0; i < shifts.size(); ++i) {
    require(std::isfinite(shifts[i]), "shifts[{}] is {}, must be finite", i, shifts[i]);
  }
  require_finite(AnyMatrixView::of(queries.view()), "queries");

  const bool interleaved = params.layout == RopeLayout::interleaved;
  const std::size_t step = interleaved ? 2 : 1;
  const std::size_t partner = interleaved ? 1 : frequencies.size();
  Rotation rotation(frequencies.size());
  for (std::size_t i = 0; i < queries.rows(); ++i) {
    // The heads of a position share their shift, and the angles are the expensive part.
    if (i == 0 || shifts[i] != shifts[i - 1]) rotation.set(shifts[i], frequencies);
    float* row = queries.row(i) + params.rotary_first;
    rotation.apply(row, row + partner, step);
  }
}

void TrainingSampleParams::validate(std::size_t positions) const {
  require(positions > 0, "positions is empty, there is nothing to sample");
  require(share > 0 && share <= 1, "share is {}, must be in (0, 1]", share);
  require(horizon > 0, "horizon is 0, must be at least 1");
  require(tuning_runs == 0 || tuning_steps > 0, "tuning_steps is 0 for {} tuning_runs",
          tuning_runs);
}

namespace {

/// Blocks (indices into `positions`) of the two sets, each in order of position.
struct Split {
  std::vector<std::size_t> train;
  std::vector<std::size_t> tuning;  ///< run after run
};

Split split_newest(std::size_t positions, const TrainingSampleParams& params) {
  const std::size_t steps = params.tuning_runs == 0 ? 1 : params.tuning_steps;
  const std::size_t runs = std::min(params.tuning_runs, positions / 4 / steps);
  // The runs lie as far from the training positions as decoding will: up to a horizon, and
  // no more than a quarter of what there is.
  const std::size_t block = runs == 0 ? 0 : std::clamp(params.horizon, runs * steps, positions / 4);
  // A share of .07 of 100 is 7, although the product is a little more in binary.
  const double wanted = std::ceil(params.share * static_cast<double>(positions) * (1 - 1e-12));
  const std::size_t train =
      std::clamp<std::size_t>(static_cast<std::size_t>(wanted), 1, positions - block);

  Split split;
  const std::size_t first = positions - train;
  for (std::size_t run = 0; run < runs; ++run) {
    // In the middle of its equal part of the block before the training positions.
    const std::size_t part = block / runs;
    const std::size_t begin = first - block + run * part + (part - steps) / 2;
    for (std::size_t s = 0; s < steps; ++s) split.tuning.push_back(begin + s);
  }
  for (std::size_t i = first; i < positions; ++i) split.train.push_back(i);
  return split;
}

/// How far each block moves so that every `run` blocks in a row begin at a target of their own.
std::vector<double> draw_shifts(const std::vector<std::size_t>& blocks, std::size_t run,
                                std::span<const std::size_t> positions,
                                const TrainingSampleParams& params, Random& random) {
  std::vector<double> shifts;
  shifts.reserve(blocks.size());
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    if (i % run != 0) {
      shifts.push_back(shifts.back());
      continue;
    }
    const double target =
        static_cast<double>(params.now) + static_cast<double>(random.below(params.horizon));
    shifts.push_back(target - static_cast<double>(positions[blocks[i]]));
  }
  return shifts;
}

/// The rows of `blocks`.
Matrix<float> gather(MatrixView<float> queries, const std::vector<std::size_t>& blocks,
                     std::size_t group) {
  Matrix<float> out(blocks.size() * group, queries.cols);
  for (std::size_t i = 0; i < out.rows(); ++i) {
    std::copy_n(queries.row(blocks[i / group] * group + i % group), queries.cols, out.row(i));
  }
  return out;
}

/// One value per row from one value per block.
std::vector<double> repeat(const std::vector<double>& per_block, std::size_t group) {
  std::vector<double> per_row;
  per_row.reserve(per_block.size() * group);
  for (const double value : per_block) per_row.insert(per_row.end(), group, value);
  return per_row;
}

void check_sample(MatrixView<float> queries, std::span<const std::size_t> positions,
                  std::size_t group, const TrainingSampleParams& params) {
  params.validate(positions.size());
  require(group > 0, "group is 0, must be at least 1");
  require(queries.rows % group == 0 && queries.rows / group == positions.size(),
          "queries has {} rows, but {} positions of group {} need {}", queries.rows,
          positions.size(), group, positions.size() * group);
  for (std::size_t i = 1; i < positions.size(); ++i) {
    require(positions[i] > positions[i - 1], "positions[{}] is {} after {}, must increase", i,
            positions[i], positions[i - 1]);
  }
  require(!params.shift || params.now > positions.back(),
          "now is {}, must be after the last of positions, {}", params.now, positions.back());
  require_finite(AnyMatrixView::of(queries), "queries");
}

}  // namespace

TrainingQueries sample_training_queries(MatrixView<float> queries,
                                        std::span<const std::size_t> positions, std::size_t group,
                                        const RopeParams& rope,
                                        const TrainingSampleParams& params) {
  check_sample(queries, positions, group, params);
  if (params.shift) rope.validate(queries.cols);

  const Split split = split_newest(positions.size(), params);
  TrainingQueries out;
  out.train = gather(queries, split.train, group);
  out.tuning = gather(queries, split.tuning, group);
  out.group = group;
  out.tuning_steps = split.tuning.empty() ? 0 : params.tuning_steps;
  if (!params.shift) return out;

  Random random(params.seed);
  const auto move = [&](Matrix<float>& rows, const std::vector<std::size_t>& blocks,
                        std::size_t run) {
    const auto shifts = draw_shifts(blocks, run, positions, params, random);
    rope_shift(rows, repeat(shifts, group), rope);
  };
  move(out.train, split.train, 1);
  move(out.tuning, split.tuning, params.tuning_steps);
  return out;
}

}  // namespace keyseek
