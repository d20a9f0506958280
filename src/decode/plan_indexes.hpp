/// The indexes that a plan may choose from, each built when it is wanted.
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

#include "decode/evidence.hpp"
#include "decode/plan.hpp"

namespace keyseek {

/// Fewer keys than this are scanned whole: near the size where a projection index is as fast.
inline constexpr std::size_t kLeastProjection = 6000;

/// None is built twice. Refers to its arguments.
class PlanIndexes {
 public:
  /// `before`: indexes over the same keys that are there already.
  PlanIndexes(const PlanInput& input, const DecodeParams& params, const Evidence& seen,
              const Execution& run, HeadIndex before)
      : input_(input), params_(params), seen_(seen), run_(run), built_(std::move(before)) {}

  void build_flat();
  void build_sketch();
  /// Those that look at every key: flat, and sketch where it may pay and max_memory has room for
  /// it.
  void build_complete();
  void build_projection(std::size_t k, std::vector<double> recalls);
  void build_custom();

  [[nodiscard]] const HeadIndex& built() const { return built_; }
  /// Whether tuning the projection index found a scan cheaper at this recall.
  [[nodiscard]] bool flat_is_better(double recall) const;
  /// What a plan with this retriever uses; the others are dropped.
  [[nodiscard]] HeadIndex take(Retriever retriever);

 private:
  [[nodiscard]] TrainingQueries training() const;
  [[nodiscard]] double queries_per_key() const;

  const PlanInput& input_;
  const DecodeParams& params_;
  const Evidence& seen_;
  const Execution& run_;
  HeadIndex built_;
};

}  // namespace keyseek
