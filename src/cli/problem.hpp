/// From files to what an index is built from and judged by.
#pragma once

#include <cstddef>
#include <string>

#include "keyseek/index.hpp"
#include "keyseek/io.hpp"

namespace keyseek::cli {

/// Training queries and, where the data brings them, their exact lists.
struct Training {
  TrainingQueries queries;
  Matrix<Id> lists;  ///< [queries.train.rows(), k]; empty: to be computed
};

/// Takes learn, learn_ids (with `use_lists`) and tuning out of `data`. Where `data` has training
/// queries but no tuning queries, some are held out: every fifth step, 400 at most, each a
/// sequence of its own. Throws Error without training queries, naming `name`.
[[nodiscard]] Training take_training(io::Benchmark& data, bool use_lists, const std::string& name);

/// The k best keys of every test query: from the data where it has them, else computed.
[[nodiscard]] Matrix<Id> truth_of(const io::Benchmark& data, std::size_t k, const Execution& run);
/// The first k columns. Throws Error when there are fewer.
[[nodiscard]] Matrix<Id> first_columns(const Matrix<Id>& ids, std::size_t k,
                                       const std::string& name);

/// Vectors of any type as f32.
[[nodiscard]] Matrix<float> read_queries(const std::string& path);

/// Puts the vectors of a file in the place of the training queries (and of what belongs to them).
void replace_training(io::Benchmark& data, const std::string& path);

/// Builds from the given lists, or finds them first.
[[nodiscard]] ProjectionIndex build_projection(AnyMatrixView keys, const Training& training,
                                               const ProjectionParams& params, const Execution& run,
                                               BuildReport* report);

}  // namespace keyseek::cli
