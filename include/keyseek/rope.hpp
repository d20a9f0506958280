/// Rotary position embedding: queries re-rotated to other positions, and the
/// sampler that turns prefill queries into training queries.
///
/// Rotary embedding (arXiv 2104.09864) makes q.k depend on the difference of the
/// positions only. So a prefill query at position p, re-rotated by p' - p, is what
/// the same query would be if it were asked at p'. Trained on queries moved to the
/// positions where decoding will happen, an index meets the queries it expects.
///
/// Everything is a value; functions keep no state and are thread-safe.
///
///     keyseek::RopeParams rope{.theta = 1e6};
///     keyseek::TrainingSampleParams sample{.now = 32768, .horizon = 1024};
///     auto training = keyseek::sample_training_queries(queries, positions, 4, rope, sample);
///     auto index = keyseek::Index::build(keyseek::IndexKind::projection, keys, training);
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "keyseek/matrix.hpp"

namespace keyseek {

/// Which elements form a rotated pair (j counts pairs, r = rotary dimension).
enum class RopeLayout {
  half_split,   ///< (x[j], x[j + r/2]): Llama, Gemma in transformers
  interleaved,  ///< (x[2j], x[2j + 1]): GPT-J, original RoFormer
};

struct RopeParams {
  double theta = 10000.0;
  /// So many elements are rotated, the rest stay; 0: all from `rotary_first` on.
  std::size_t rotary_dim = 0;
  RopeLayout layout = RopeLayout::half_split;
  /// Radians per position of each pair (rotary_dim / 2 values), for scaled
  /// embeddings (linear, NTK, Llama 3, YaRN); empty: theta^(-2j / rotary_dim).
  std::vector<double> frequencies = {};
  /// The first of the rotated elements: 0, or where the rotated ones come last (DeepSeek's).
  std::size_t rotary_first = 0;

  /// Throws Error(invalid_argument) when the parameters do not fit vectors of dimension d.
  void validate(std::size_t d) const;
};

/// Radians per position of each pair for vectors of dimension d.
[[nodiscard]] std::vector<double> rope_frequencies(const RopeParams& params, std::size_t d);

/// Rotates row i of `queries` by `shifts[i]` positions (may be negative or fractional),
/// in place. Angles are computed in f64. shifts.size() == queries.rows(). Scale factors that
/// an embedding applies at every position (YaRN's) are in the queries already and stay.
void rope_shift(Matrix<float>& queries, std::span<const double> shifts, const RopeParams& params);

struct TrainingSampleParams {
  /// First position that decoding will use: after all that are sampled.
  std::size_t now = 0;
  /// T: tokens to be decoded before a rebuild; targets are uniform in [now, now + T).
  std::size_t horizon = 1024;
  /// Share of the prefill positions used, in (0, 1]: the newest ones.
  double share = 0.25;
  std::uint64_t seed = 1;
  bool shift = true;  ///< false: queries stay where they are (for comparison, or no RoPE)
  /// Runs of consecutive positions kept out of the training set for tuning: `tuning_runs`
  /// runs of `tuning_steps` positions each, each run moved as one piece. 0 runs: none.
  std::size_t tuning_runs = 4;
  std::size_t tuning_steps = 24;

  void validate(std::size_t positions) const;  ///< throws Error(invalid_argument)
};

/// What an index is trained and tuned on.
struct TrainingQueries {
  /// [m * group, d]: the queries of one position are consecutive rows.
  Matrix<float> train = {};
  /// [runs * steps * group, d]: held out; within a run consecutive steps are
  /// consecutive positions, as decoding will see them.
  Matrix<float> tuning = {};
  std::size_t group = 1;         ///< G: query heads that share the keys
  std::size_t tuning_steps = 0;  ///< steps of one tuning run
  /// [rows of train, k] exact top keys of each, best first, padded with kNoId, where they are
  /// known; empty: an index that wants them finds them.
  Matrix<Id> lists = {};
};

/// Turns prefill queries into training queries: takes the newest ceil(share * positions)
/// positions, keeps all G heads of each, and re-rotates each position to a target of its own,
/// drawn uniformly from the integers in [now, now + horizon).
///
/// The tuning runs are taken from the positions just before those, spread evenly over one
/// horizon (at most a quarter of all positions), so that they are as far from the training
/// positions as decoding will be. A run moves by one shift: its first position goes to a
/// target as above. Where there are fewer than 4 * runs * steps positions, fewer runs are held
/// out, maybe none. Rows of both sets are in order of position.
///
/// `queries` is [positions * G, d]: the G heads of one position are consecutive rows.
/// `positions[i]` is the absolute position of block i; they increase, and end before `now`
/// unless `shift` is false. Deterministic in `seed`.
[[nodiscard]] TrainingQueries sample_training_queries(MatrixView<float> queries,
                                                      std::span<const std::size_t> positions,
                                                      std::size_t group, const RopeParams& rope,
                                                      const TrainingSampleParams& params);

}  // namespace keyseek
