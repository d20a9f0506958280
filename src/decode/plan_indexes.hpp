/// The indexes that a plan may choose from, each built when it is wanted.
#pragma once

#include <cstddef>
#include <map>
#include <vector>

#include "decode/evidence.hpp"
#include "decode/plan.hpp"
#include "index/builder.hpp"

namespace keyseek {

/// Fewer keys than this are scanned whole: near the size where a projection index is as fast.
inline constexpr std::size_t kLeastProjection = 6000;

/// None is built twice; all share the keys. Refers to its arguments.
class PlanIndexes {
 public:
  /// `before`: an index over the same keys that is there already, or none.
  PlanIndexes(const PlanInput& input, const DecodeParams& params, const Evidence& seen,
              const Execution& run, HeadIndex before);
  PlanIndexes(const PlanIndexes&) = delete;  // the builder refers to the training queries
  PlanIndexes& operator=(const PlanIndexes&) = delete;

  void build_flat() { build(IndexKind::flat, {}); }
  void build_sketch();
  /// Those that look at every key: flat, and sketch where it may pay and max_memory has room for
  /// it.
  void build_complete();
  void build_projection(std::size_t k, std::vector<double> recalls);
  void build_custom();

  [[nodiscard]] bool has(IndexKind kind) const { return built_.contains(kind); }
  /// Whether tuning the projection index found a scan cheaper at this recall.
  [[nodiscard]] bool flat_is_better(double recall) const;
  /// What a plan with this retriever searches; it has been built.
  [[nodiscard]] HeadIndex of(Retriever retriever) const;

 private:
  void build(IndexKind kind, const IndexParams& params);
  /// Makes the training queries at first use.
  void want_training();
  [[nodiscard]] TrainingQueries training() const;
  [[nodiscard]] double queries_per_key() const;

  const PlanInput& input_;
  const DecodeParams& params_;
  const Evidence& seen_;
  TrainingQueries training_;
  IndexBuilder builder_;
  std::map<IndexKind, Index> built_;
  SearchKeys custom_;
};

}  // namespace keyseek
