/// An index of any kind.
#pragma once

#include <string>
#include <string_view>
#include <variant>

#include "cli/console.hpp"
#include "keyseek/index.hpp"
#include "keyseek/measure.hpp"

namespace keyseek::cli {

using AnyIndex = std::variant<FlatIndex, SketchIndex, ProjectionIndex>;

inline constexpr std::string_view kFlat = "flat";
inline constexpr std::string_view kSketch = "sketch";
inline constexpr std::string_view kProjection = "projection";

/// Loads or maps the file, with all checks.
[[nodiscard]] AnyIndex open_index(const std::string& path, bool mapped);

[[nodiscard]] std::string_view kind_of(const AnyIndex& index);
[[nodiscard]] std::size_t size_of(const AnyIndex& index);
[[nodiscard]] std::size_t dim_of(const AnyIndex& index);
[[nodiscard]] std::size_t bytes_of(const AnyIndex& index);
/// 0 for an index without links.
[[nodiscard]] std::size_t unreachable_of(const AnyIndex& index);
/// Kind, keys, dim, bytes; the sketch's dim; of a projection index, links and tuned dials.
[[nodiscard]] Json describe(const AnyIndex& index);

[[nodiscard]] Measurement measure(const AnyIndex& index, MatrixView<float> queries,
                                  const MeasureParams& params);

}  // namespace keyseek::cli
