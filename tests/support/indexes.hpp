/// Indexes of every kind in one line.
#pragma once

#include <string_view>

#include "keyseek/error.hpp"
#include "keyseek/index.hpp"

namespace keyseek::test {

inline Index flat_index(AnyMatrixView keys, const Execution& run = {}) {
  return Index::build(IndexKind::flat, keys, {}, {}, run);
}

inline Index sketch_index(AnyMatrixView keys, MatrixView<float> queries,
                          const SketchParams& params = {}, const Execution& run = {}) {
  TrainingQueries training;
  training.train = to_f32(AnyMatrixView::of(queries));
  return Index::build(IndexKind::sketch, keys, training, params, run);
}

inline Index projection_index(AnyMatrixView keys, const TrainingQueries& training,
                              const ProjectionParams& params = {}, const Execution& run = {}) {
  return Index::build(IndexKind::projection, keys, training, params, run);
}

/// The fact of this name, of an index that has it.
inline std::size_t fact(const Index& index, std::string_view name) {
  for (const IndexFact& each : index.facts())
    if (each.name == name) return each.value;
  throw Error(ErrorCode::invalid_argument, "no such fact");
}

}  // namespace keyseek::test
