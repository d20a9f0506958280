// When each index of a plan is built, and by what parameters.
#include "decode/plan_indexes.hpp"

#include <algorithm>
#include <cmath>

#include "decode/caller_search.hpp"

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
    : input_(input), params_(params), seen_(seen), builder_(input.indexed_keys, training_, run) {
  if (!before.empty()) built_.emplace(Retriever::projection, std::move(before));
}

void PlanIndexes::build(Retriever retriever, const IndexParams& params) {
  if (has(retriever)) return;
  if (retriever != Retriever::flat && training_.train.empty()) training_ = training();
  built_.emplace(retriever, builder_.build(kind_of(retriever).value(), params));
}

void PlanIndexes::build_flat() { build(Retriever::flat, {}); }
void PlanIndexes::build_sketch() { build(Retriever::sketch, {}); }

void PlanIndexes::build_complete() {
  build_flat();
  const Tokens::Piece& indexed = input_.tokens.indexed;
  const auto n = static_cast<double>(indexed.keys.rows);
  if (indexed.keys.rows < kLeastSketch) return;
  build_sketch();
  const double memory = static_cast<double>(of(Retriever::sketch).bytes_or(input_.indexed_keys)) +
                        n * static_cast<double>(indexed.values.row_bytes());
  if (memory > (params_.max_memory - kReserve) * n * static_cast<double>(indexed.row_bytes()))
    built_.erase(Retriever::sketch);
}

void PlanIndexes::build_projection(std::size_t k, std::vector<double> recalls) {
  ProjectionParams projection;
  projection.graph.degree = kDegree;
  projection.graph.max_degree = kMaxDegree;
  projection.router.queries_per_key = queries_per_key();
  projection.target_recalls = std::move(recalls);
  projection.tuning_k = k;
  build(Retriever::projection, projection);
}

void PlanIndexes::build_custom() {
  built_.insert_or_assign(Retriever::custom, HeadIndex(checked(params_.index(input_.indexed_keys),
                                                               input_.indexed_keys)));
}

HeadIndex PlanIndexes::take(Retriever retriever) {
  return has(retriever) ? std::move(built_.at(retriever)) : HeadIndex();
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
