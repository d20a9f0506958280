/// What is searched in a sweep, and what a thing that is measured has to offer.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "keyseek/error.hpp"
#include "keyseek/execution.hpp"
#include "keyseek/io.hpp"
#include "sweep/json.hpp"

namespace keyseek::sweep {

/// Looks at `data`, which has to live as long.
struct Problem {
  std::string name;  ///< without folders, as rows carry it
  const io::Benchmark& data;
  Matrix<Id> truth;  ///< [queries, k]
  std::size_t k = 0;
  std::size_t group = 1;       ///< queries of a step
  bool warm = true;            ///< a step may start from the hits of the one before
  Json view = Json::object();  ///< how a capture became this problem
};

/// A setting of a contender.
struct Point {
  std::optional<Dials> dials = {};     ///< of keyseek's own indexes
  std::vector<double> tuned_for = {};  ///< recalls that tuning chose the dials for
  Json params = Json::object();        ///< of other indexes, as rows carry them
};

/// What building found out: fields of every row of the contender.
struct Built {
  double seconds = 0;
  std::size_t bytes = 0;
  int threads = 1;
  std::optional<std::size_t> unreachable = {}, extra_bytes = {};
};

/// One run over all test queries; times of steps and queries are in microseconds.
struct Sample {
  Matrix<Id> ids;      ///< [queries, k]
  double seconds = 0;  ///< of the whole run
  double us_per_query = 0, us_per_step_p50 = 0;
  std::optional<double> us_per_step_p95 = {}, scanned_fraction = {}, bytes_read = {}, expanded = {};
};

/// Thrown by a contender that cannot go on: a sweep goes on without it.
class ContenderFailed : public Error {
 public:
  explicit ContenderFailed(const std::string& sentence) : Error(ErrorCode::unsupported, sentence) {}
};

/// One index. Its points are known before it is built, so that nothing is built for rows that are
/// there already.
struct Contender {
  std::string index = {};  ///< the name of its kind, or of the library
  Json identity = {};  ///< what tells its rows from others', beyond the problem's and the point's
  std::vector<Point> points = std::vector<Point>(1);  ///< by rising effort; building may add some
  bool can_be_cold = false;  ///< whether it can be measured with caches cold between steps
  std::function<Built(const Execution& run, std::vector<Point>& points)> build = {};
  std::function<Sample(const Point& point, bool cold)> measure = {};
};

}  // namespace keyseek::sweep
