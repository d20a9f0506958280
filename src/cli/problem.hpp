/// From files to what an index is built from and judged by.
#pragma once

#include <cstddef>
#include <string>

#include "keyseek/index.hpp"
#include "keyseek/io.hpp"

namespace keyseek::cli {

/// The data's training set, with its lists only when they are asked for. Throws Error without
/// training queries, or without lists that are asked for, naming `name`.
[[nodiscard]] TrainingQueries training_of(const io::Benchmark& data, bool use_lists,
                                          const std::string& name);

/// The k best keys of every test query: from the data where it has them, else computed.
[[nodiscard]] Matrix<Id> truth_of(const io::Benchmark& data, std::size_t k, const Execution& run);
/// The first k columns. Throws Error when there are fewer.
[[nodiscard]] Matrix<Id> first_columns(const Matrix<Id>& ids, std::size_t k,
                                       const std::string& name);

/// Vectors of any type as f32. Throws Error naming the file on NaN and infinity.
[[nodiscard]] Matrix<float> read_queries(const std::string& path, const io::Hdf5Access& access);

/// Puts the vectors of a file in the place of the training queries (and of what belongs to them).
void replace_training(io::Benchmark& data, const std::string& path, const io::Hdf5Access& access);

/// Puts vectors whose inner products are by the metric in the place of keys and queries.
MetricSpace by_metric(io::Benchmark& data, Metric metric);

/// Makes queries to ask of every tenth training step, at most 1,000 of them, which are trained with
/// no more. Throws Error when there are fewer than two steps.
void ask_some_of_training(io::Benchmark& data);

}  // namespace keyseek::cli
