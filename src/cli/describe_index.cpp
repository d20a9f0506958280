/// Says what an index is, for every command that reports one.
#include "cli/describe_index.hpp"

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

Json describe(const Index& index) {
  Json report = {{"index", to_string(index.kind())},
                 {"keys", index.size()},
                 {"dim", index.dim()},
                 {"metric", to_string(index.metric())},
                 {"index_bytes", index.bytes()},
                 {"extra_bytes", index.extra_bytes()},
                 {"extra_bytes_per_key",
                  static_cast<double>(index.extra_bytes()) / static_cast<double>(index.size())}};
  for (const IndexFact& fact : index.facts()) report[std::string(fact.name)] = fact.value;
  const std::vector<OperatingPoint> points = index.operating_points();
  if (points.empty()) return report;
  report["operating_points"] = Json::array();
  for (const OperatingPoint& point : points) report["operating_points"].push_back(to_json(point));
  return report;
}

}  // namespace keyseek::cli
