/// Attends to a trained tail, and sets its mass by what was retrieved.
#include "keyseek/tail.hpp"

#include <algorithm>
#include <cmath>

#include "attention/capped.hpp"
#include "attention/tail_mass.hpp"
#include "base/fail.hpp"
#include "score/rows.hpp"

namespace keyseek {
namespace {

void check(bool ok, const char* what) {
  if (!ok) fail(ErrorCode::corrupt, "tail: {}", what);
}

}  // namespace

std::size_t Tail::bytes() const noexcept {
  const std::size_t floats =
      parts_.bias.rows() * parts_.bias.cols() + parts_.correction.rows() * (kFeatures + kLimits);
  return parts_.keys.bytes() + parts_.values.bytes() + floats * sizeof(float);
}

Tail Tail::from_parts(Parts parts) {
  const std::size_t count = parts.keys.rows(), group = parts.correction.rows();
  check(count > 0 && group > 0, "no vectors");
  check(group <= kMaxGroup, "too many query heads");
  check(parts.keys.cols() > 0 && parts.values.cols() > 0, "vectors of no dimension");
  for (const Dtype dtype : {parts.keys.dtype(), parts.values.dtype()})
    check(dtype == Dtype::f16 || dtype == Dtype::f32, "not in f16 or f32");
  check(parts.bias.rows() == count && parts.bias.cols() == group, "biases do not match");
  check(parts.values.rows() == group * count, "values do not match");
  check(parts.correction.cols() == kFeatures, "the correction has a wrong size");
  check(parts.limits.rows() == group && parts.limits.cols() == kLimits, "limits do not match");
  for (std::size_t g = 0; g < group; ++g) {
    const float* limits = parts.limits.row(g);
    check(std::isfinite(limits[0]) && limits[0] <= limits[1] && std::isfinite(limits[1]) &&
              std::isfinite(limits[2]),
          "the limits are no range");
  }
  const Logits& logits = parts.logits;
  check(std::isfinite(logits.scale) && logits.scale > 0, "the scale is wrong");
  check(std::isfinite(logits.softcap) && logits.softcap >= 0, "the soft-cap is wrong");
  Tail tail;
  tail.parts_ = std::move(parts);
  return tail;
}

void attend_tail(MatrixView<float> queries, const Hits& hits, const Partial& retrieved,
                 const Tail& tail, AttendScratch& scratch, Partial& out) {
  const Tail::Parts& p = tail.parts();
  const std::size_t count = tail.vectors(), group = tail.group(), dv = p.values.cols();
  require(!tail.empty(), "tail is empty");
  require(queries.rows == group && hits.group == group && retrieved.lse.size() == group,
          "queries, hits and retrieved are of {}, {} and {} queries, the tail of {}", queries.rows,
          hits.group, retrieved.lse.size(), group);
  require(queries.cols == p.keys.cols(), "queries have dimension {}, the tail has {}", queries.cols,
          p.keys.cols());
  out.reset(group, dv);
  scratch.weights.resize(count * group + count);
  scratch.best.resize(group);
  scratch.sum.resize(group);
  float* logits = scratch.weights.data();
  float* of_head = logits + count * group;
  score_rows(rows_of(p.keys.view()), queries, logits);
  const float* bias = p.bias.data();
  const float scale = capped(p.logits, logits, count * group);
  for (std::size_t i = 0; i < count * group; ++i) logits[i] = logits[i] * scale + bias[i];
  kernels().softmax_rows(logits, count, group, 1.0F, scratch.best.data(), scratch.sum.data());
  for (std::size_t g = 0; g < group; ++g) {
    const double own = double{scratch.best[g]} + std::log(double{scratch.sum[g]});
    const std::span<const float> scores = hits.row_scores(g);
    const MassFeatures f = mass_features(scores, p.logits, retrieved.lse[g], own);
    const double mass = tail_mass(p, g, f, scores, own);
    out.lse[g] = static_cast<float>(mass);
    out.best[g] = static_cast<float>(double{scratch.best[g]} + mass - own);
    for (std::size_t c = 0; c < count; ++c) of_head[c] = logits[c * group + g] / scratch.sum[g];
    add_rows(rows_of(p.values.view().slice(g * count, count)), {of_head, 1}, out.out.row(g));
  }
}

}  // namespace keyseek
