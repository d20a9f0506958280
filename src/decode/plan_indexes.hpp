/// The indexes that a plan may choose from, each built when it is wanted.
#pragma once

#include <cstddef>
#include <map>
#include <utility>
#include <vector>

#include "decode/evidence.hpp"
#include "decode/head_index.hpp"
#include "decode/plan_input.hpp"
#include "index/builder.hpp"

namespace keyseek {

/// Fewer keys than this are scanned whole: near the size where a projection index is as fast.
inline constexpr std::size_t kLeastProjection = 6000;

/// None is built twice; all share the keys. Refers to its arguments.
class PlanIndexes {
 public:
  /// `before`: a projection index over the same keys that is there already, or none.
  PlanIndexes(const PlanInput& input, const DecodeParams& params, const Evidence& seen,
              const Execution& run, HeadIndex before);
  PlanIndexes(const PlanIndexes&) = delete;  // the builder refers to the training queries
  PlanIndexes& operator=(const PlanIndexes&) = delete;

  void build_flat();
  void build_sketch();
  /// Those that look at every key: flat, and sketch where it may pay and max_memory has room for
  /// it.
  void build_complete();
  void build_projection(std::size_t k, std::vector<double> recalls);
  void build_custom();

  [[nodiscard]] bool has(Retriever retriever) const { return built_.contains(retriever); }
  /// One that is built.
  [[nodiscard]] const HeadIndex& of(Retriever retriever) const { return built_.at(retriever); }
  /// What a plan with this retriever uses.
  [[nodiscard]] HeadIndex take(Retriever retriever);

 private:
  void build(Retriever retriever, const IndexParams& params);
  [[nodiscard]] TrainingQueries training() const;
  [[nodiscard]] double queries_per_key() const;

  const PlanInput& input_;
  const DecodeParams& params_;
  const Evidence& seen_;
  TrainingQueries training_;  ///< made for the first index that wants any
  IndexBuilder builder_;
  std::map<Retriever, HeadIndex> built_;
};

}  // namespace keyseek
