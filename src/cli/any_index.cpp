#include "cli/any_index.hpp"

namespace keyseek::cli {
namespace {

Json to_json(const OperatingPoint& point) {
  return {{"target_recall", point.target_recall},
          {"recall", point.recall},
          {"scanned_fraction", point.scanned_fraction},
          {"dials", sweep::to_json(point.dials)},
          {"flat_is_better", point.flat_is_better}};
}

}  // namespace

AnyIndex open_index(const std::string& path, bool mapped) {
  const std::string kind = index_kind(path);
  if (kind == kFlat) return mapped ? FlatIndex::map(path) : FlatIndex::load(path);
  if (kind == kSketch) return mapped ? SketchIndex::map(path) : SketchIndex::load(path);
  return mapped ? ProjectionIndex::map(path) : ProjectionIndex::load(path);
}

std::string_view kind_of(const AnyIndex& index) {
  if (std::holds_alternative<FlatIndex>(index)) return kFlat;
  return std::holds_alternative<SketchIndex>(index) ? kSketch : kProjection;
}
std::size_t size_of(const AnyIndex& index) {
  return std::visit([](const auto& i) { return i.size(); }, index);
}
std::size_t dim_of(const AnyIndex& index) {
  return std::visit([](const auto& i) { return i.dim(); }, index);
}
std::size_t bytes_of(const AnyIndex& index) {
  return std::visit([](const auto& i) { return i.bytes(); }, index);
}
std::size_t unreachable_of(const AnyIndex& index) {
  const auto* projection = std::get_if<ProjectionIndex>(&index);
  return projection == nullptr ? 0 : projection->unreachable();
}

Json describe(const AnyIndex& index) {
  Json report = {{"index", kind_of(index)},
                 {"keys", size_of(index)},
                 {"dim", dim_of(index)},
                 {"index_bytes", bytes_of(index)}};
  if (const auto* sketch = std::get_if<SketchIndex>(&index))
    report["sketch_dim"] = sketch->sketch_dim();
  if (const auto* projection = std::get_if<ProjectionIndex>(&index)) {
    report["extra_bytes"] = projection->extra_bytes();
    report["extra_bytes_per_key"] =
        static_cast<double>(projection->extra_bytes()) / static_cast<double>(projection->size());
    report["unreachable"] = projection->unreachable();
    report["dials"] = Json::array();
    for (const OperatingPoint& point : projection->dials()) {
      report["dials"].push_back(to_json(point));
    }
  }
  return report;
}

Measurement measure(const AnyIndex& index, MatrixView<float> queries, const MeasureParams& params) {
  return std::visit([&](const auto& i) { return measure_steps(i, queries, params); }, index);
}

}  // namespace keyseek::cli
