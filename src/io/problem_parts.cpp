/// Whether the parts of a search problem that came from several places belong together.
#include <string>

#include "base/fail.hpp"
#include "keyseek/io.hpp"
#include "keyseek/knn.hpp"

namespace keyseek::io {
namespace {

void require_queries(const Matrix<float>& queries, const std::string& name, const Benchmark& b,
                     const std::string& keys_name) {
  if (queries.empty()) return;
  require(queries.cols() == b.keys.cols(), "{} has dimension {}, but {} has {}", name,
          queries.cols(), keys_name, b.keys.cols());
  require(queries.rows() % b.group == 0, "{} has {} rows, no multiple of group = {}", name,
          queries.rows(), b.group);
  require_finite(AnyMatrixView::of(queries.view()), name);
}

}  // namespace

void require_matching(const Benchmark& b, const PartNames& names) {
  require(b.keys.rows() > 0, "{} is empty", names.keys);
  require(b.group >= 1 && b.group <= 64, "group is {}, must be in [1, 64]", b.group);
  require_finite(b.keys.view(), names.keys);
  require_queries(b.queries, names.queries, b, names.keys);
  require_queries(b.learn, names.train, b, names.keys);
  require_queries(b.tuning, names.tuning, b, names.keys);
  const std::size_t run = b.group * b.tuning_steps;
  require(b.tuning.empty() || (run > 0 && b.tuning.rows() % run == 0),
          "{} has {} rows, no multiple of group = {} x tuning_steps = {}", names.tuning,
          b.tuning.rows(), b.group, b.tuning_steps);
  if (b.truth_ids.empty()) return;
  require(b.truth_ids.rows() == b.queries.rows(), "{} has {} rows, but {} has {}", names.truth,
          b.truth_ids.rows(), names.queries, b.queries.rows());
  require(b.truth_ids.cols() <= b.keys.rows(), "{} has {} ids per query, but {} has {} rows",
          names.truth, b.truth_ids.cols(), names.keys, b.keys.rows());
  require_ids(b.truth_ids, b.keys.rows(), names.truth);
}

}  // namespace keyseek::io
