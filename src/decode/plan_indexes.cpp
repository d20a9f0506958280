/// Builds what a plan may search, with what max_memory leaves for it.
#include "decode/plan_indexes.hpp"

#include <algorithm>
#include <cmath>

#include "decode/caller_search.hpp"
#include "decode/head_index.hpp"

namespace keyseek {
namespace {

// With fewer keys, what goes on from a sketch is most of them.
constexpr std::size_t kLeastSketch = 1500;
// Positions that train an index, where the prompt has so many: a tenth of a short prompt asks for
// too little of it.
constexpr std::size_t kLeastTraining = 1024;
// A sparser graph than an index alone has: the same recall for the same keys scanned here, where
// router and warm start do most of the work, in less memory.
constexpr std::size_t kDegree = 16, kMaxDegree = 24;
// Bytes per key of such a graph, and per training query in the router (its list of 100 in gaps,
// its projected codes); memory for tail and remembered queries, in units of keys and values.
constexpr double kLinkBytes = 55, kRouterBytes = 280, kReserve = 0.08;

}  // namespace

PlanIndexes::PlanIndexes(const PlanInput& input, const DecodeParams& params, const Evidence& seen,
                         const Execution& run, HeadIndex before)
    : input_(input),
      params_(params),
      seen_(seen),
      builder_(input.indexed_keys, training_, run),
      custom_(std::move(before.custom)) {
  if (!before.index.empty()) built_[before.index.kind()] = std::move(before.index);
}

void PlanIndexes::build(IndexKind kind, const IndexParams& params) {
  if (!has(kind)) built_[kind] = builder_.build(kind, params);
}

void PlanIndexes::build_sketch() {
  want_training();
  build(IndexKind::sketch, {});
}

void PlanIndexes::build_complete() {
  build_flat();
  const Tokens::Piece& indexed = input_.tokens.indexed;
  const auto n = static_cast<double>(indexed.keys.rows);
  if (indexed.keys.rows < kLeastSketch) return;
  build_sketch();
  const double memory = static_cast<double>(built_[IndexKind::sketch].bytes()) +
                        n * static_cast<double>(indexed.values.row_bytes());
  if (memory > (params_.max_memory - kReserve) * n * static_cast<double>(indexed.row_bytes()))
    built_.erase(IndexKind::sketch);
}

void PlanIndexes::build_projection(std::size_t k, std::vector<double> recalls) {
  if (has(IndexKind::projection)) return;
  ProjectionParams projection;
  projection.graph.degree = kDegree;
  projection.graph.max_degree = kMaxDegree;
  projection.router.queries_per_key = queries_per_key();
  projection.target_recalls = std::move(recalls);
  projection.tuning_k = k;
  want_training();
  build(IndexKind::projection, projection);
}

void PlanIndexes::build_custom() {
  custom_ = checked(params_.index(input_.indexed_keys), input_.indexed_keys);
}

bool PlanIndexes::flat_is_better(double recall) const {
  for (const OperatingPoint& point : built_.at(IndexKind::projection).operating_points())
    if (point.target_recall >= recall) return point.flat_is_better;
  return false;
}

HeadIndex PlanIndexes::of(Retriever retriever) const {
  HeadIndex found;
  if (const auto kind = index_kind_of(retriever)) found.index = built_.at(*kind);
  if (retriever == Retriever::custom) found.custom = custom_;
  return found;
}

void PlanIndexes::want_training() {
  if (training_.train.empty()) training_ = training();
}

/// Queries of the prompt moved to where decoding will happen, and those held out.
TrainingQueries PlanIndexes::training() const {
  const auto wanted = static_cast<std::size_t>(
      std::ceil(params_.share * static_cast<double>(input_.tokens.size())));
  const std::size_t count =
      std::min(std::max(wanted, kLeastTraining), seen_.last_training - seen_.first_training);
  const std::size_t first = seen_.last_training - count;
  TrainingQueries training =
      sample_training_queries(input_.queries.slice(first * input_.group, count * input_.group),
                              input_.positions.subspan(first, count), input_.group, params_.rope,
                              {.now = input_.tokens.size(),
                               .horizon = params_.horizon,
                               .share = 1.0,
                               .seed = params_.seed,
                               .shift = params_.shift,
                               .tuning_runs = 0});
  training.tuning = seen_.held.queries;
  training.tuning_steps = seen_.held.run;
  return training;
}

/// What max_memory leaves for the router when codes and links have theirs.
double PlanIndexes::queries_per_key() const {
  const Tokens::Piece& indexed = input_.tokens.indexed;
  const double left =
      (params_.max_memory - kReserve - 1.0) * static_cast<double>(indexed.row_bytes()) -
      static_cast<double>(indexed.keys.cols + sizeof(float)) - kLinkBytes;
  return std::clamp(left / kRouterBytes, 0.02, RouterParams().queries_per_key);
}

}  // namespace keyseek
