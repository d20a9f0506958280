/// Attends to sets of tokens block by block and merges the parts.
#include "keyseek/attention.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "attention/capped.hpp"
#include "base/fail.hpp"
#include "score/rows.hpp"

namespace keyseek {
namespace {

constexpr float kNothing = -std::numeric_limits<float>::infinity();
// Tokens at a time: their weights stay in the first-level cache, and sums in f32 stay exact.
constexpr std::size_t kBlock = 512;

/// The `count` rows that `ids` names, or where it is null those from `first` on.
RowsView block_of(AnyMatrixView m, const Id* ids, std::size_t first, std::size_t count) {
  return ids == nullptr ? rows_of(m.slice(first, count)) : rows_of(m, {ids, count});
}

/// Adds tokens to attention that is not normalised yet: out[g] is the sum of weights times
/// values, lse[g] its largest logit, s.sum[g] the sum of its weights.
class Accumulator {
 public:
  /// For queries [first, first + group) of `to`.
  Accumulator(Partial& to, std::size_t first, std::size_t group, AttendScratch& scratch, Logits how)
      : out_(to.out.row(first)),
        lse_(to.lse.data() + first),
        best_(to.best.data() + first),
        s_(scratch),
        how_(how),
        group_(group),
        dv_(to.out.cols()) {
    s_.sum.assign(group_, 0.0F);
    s_.best.resize(2 * group_);
  }

  /// `logits` [count, G], inner products so far, are overwritten; `ids` null: rows from `first` on.
  void add(float* logits, std::size_t count, ValuesView values, const Id* ids, std::size_t first) {
    float* best = s_.best.data();
    float* sum = best + group_;
    const float scale = capped(how_, logits, count * group_);
    kernels().softmax_rows(logits, count, group_, scale, best, sum);
    for (std::size_t g = 0; g < group_; ++g) {
      require(std::isfinite(scale * best[g]) && std::isfinite(sum[g]),
              "the logits of query {} are beyond what f32 holds ({} x {}): scale queries or keys "
              "down",
              g, scale, best[g]);
      raise(g, scale * best[g], sum[g], logits, count);
    }
    if (values.scales != nullptr) {
      for (std::size_t j = 0; j < count; ++j) {
        const float factor = values.scales[ids != nullptr ? ids[j] : first + j];
        for (std::size_t g = 0; g < group_; ++g) logits[j * group_ + g] *= factor;
      }
    }
    add_rows(block_of(values.rows, ids, first, count), {logits, group_}, out_);
  }

  void finish() {
    for (std::size_t g = 0; g < group_; ++g) {
      const float sum = s_.sum[g];
      best_[g] = lse_[g];
      if (sum == 0.0F) continue;
      for (std::size_t c = 0; c < dv_; ++c) out_[g * dv_ + c] /= sum;
      lse_[g] += std::log(sum);
    }
  }

 private:
  /// Puts what is there and what comes under one maximum.
  void raise(std::size_t g, float best, float sum, float* weights, std::size_t count) {
    const float old = lse_[g], top = std::max(old, best);
    const float keep = std::exp(old - top), fresh = std::exp(best - top);
    if (keep != 1.0F) {
      for (std::size_t c = 0; c < dv_; ++c) out_[g * dv_ + c] *= keep;
    }
    if (fresh != 1.0F) {
      for (std::size_t j = 0; j < count; ++j) weights[j * group_ + g] *= fresh;
    }
    s_.sum[g] = s_.sum[g] * keep + sum * fresh;
    lse_[g] = top;
  }

  float* out_;
  float* lse_;  ///< while adding: the largest logit so far
  float* best_;
  AttendScratch& s_;
  Logits how_;
  std::size_t group_;
  std::size_t dv_;
};

void require_shapes(MatrixView<float> queries, AnyMatrixView keys, ValuesView values,
                    Logits logits) {
  require(queries.rows >= 1 && queries.rows <= kMaxGroup, "queries has {} rows, must have 1 to {}",
          queries.rows, kMaxGroup);
  require(queries.cols == keys.cols, "queries have dimension {}, keys have {}", queries.cols,
          keys.cols);
  require(values.rows.rows == keys.rows, "values has {} rows, keys has {}", values.rows.rows,
          keys.rows);
  logits.validate();
}

void attend_rows(MatrixView<float> queries, AnyMatrixView keys, ValuesView values, const Id* ids,
                 std::size_t count, Logits logits, AttendScratch& scratch, Partial& out) {
  require_shapes(queries, keys, values, logits);
  out.reset(queries.rows, values.rows.cols);
  Accumulator sums(out, 0, queries.rows, scratch, logits);
  scratch.weights.resize(kBlock * queries.rows);
  for (std::size_t first = 0; first < count; first += kBlock) {
    const std::size_t block = std::min(kBlock, count - first);
    const Id* block_ids = ids != nullptr ? ids + first : nullptr;
    score_rows(block_of(keys, block_ids, first, block), queries, scratch.weights.data());
    sums.add(scratch.weights.data(), block, values, block_ids, first);
  }
  sums.finish();
}

}  // namespace

void Logits::validate() const {
  require(std::isfinite(scale) && scale > 0.0F, "scale is {}, must be above 0", scale);
  require(std::isfinite(softcap) && softcap >= 0.0F,
          "softcap is {}, must be above 0, or 0 for logits that are not capped", softcap);
}

void Partial::reset(std::size_t queries, std::size_t dv, std::span<const float> null_logits) {
  if (out.rows() != queries || out.cols() != dv) out = Matrix<float>(queries, dv);
  std::fill_n(out.data(), queries * dv, 0.0F);
  lse.assign(queries, kNothing);
  best.assign(queries, kNothing);
  if (null_logits.empty()) return;
  for (std::size_t q = 0; q < queries; ++q) lse[q] = null_logits[q % null_logits.size()];
}

Partial Partial::slice(std::size_t first, std::size_t count) const {
  Partial part;
  part.reset(count, out.cols());
  std::copy_n(out.row(first), count * out.cols(), part.out.data());
  const auto from = static_cast<std::ptrdiff_t>(first);
  std::copy_n(lse.begin() + from, count, part.lse.begin());
  std::copy_n(best.begin() + from, count, part.best.begin());
  return part;
}

void attend(MatrixView<float> queries, AnyMatrixView keys, ValuesView values, Logits logits,
            AttendScratch& scratch, Partial& out) {
  attend_rows(queries, keys, values, nullptr, keys.rows, logits, scratch, out);
}

void attend_ids(MatrixView<float> queries, AnyMatrixView keys, ValuesView values,
                std::span<const Id> ids, Logits logits, AttendScratch& scratch, Partial& out) {
  for (const Id id : ids)
    require(id < keys.rows, "ids name key {}, there are only {}", id, keys.rows);
  attend_rows(queries, keys, values, ids.data(), ids.size(), logits, scratch, out);
}

void attend_hits(const Hits& hits, ValuesView values, Logits logits, AttendScratch& scratch,
                 Partial& out) {
  logits.validate();
  out.reset(hits.group, values.rows.cols);
  for (std::size_t g = 0; g < hits.group; ++g) {
    const auto ids = hits.row_ids(g);
    const auto scores = hits.row_scores(g);
    if (ids.empty()) continue;
    for (const Id id : ids)
      require(id < values.rows.rows, "hits name key {}, there are only {} values", id,
              values.rows.rows);
    scratch.weights.assign(scores.begin(), scores.end());
    Accumulator sums(out, g, 1, scratch, logits);
    sums.add(scratch.weights.data(), ids.size(), values, ids.data(), 0);
    sums.finish();
  }
}

void merge(const Partial& part, Partial& into) {
  if (into.lse.empty()) {
    into = part;
    return;
  }
  require(part.lse.size() == into.lse.size(), "parts have {} and {} queries", part.lse.size(),
          into.lse.size());
  require(part.out.cols() == into.out.cols(), "parts have values of dimension {} and {}",
          part.out.cols(), into.out.cols());
  for (std::size_t g = 0; g < into.lse.size(); ++g) {
    const float top = std::max(part.lse[g], into.lse[g]);
    if (top == kNothing) continue;
    const float a = std::exp(into.lse[g] - top), b = std::exp(part.lse[g] - top);
    const float share = b / (a + b);
    float* to = into.out.row(g);
    const float* from = part.out.row(g);
    for (std::size_t c = 0; c < into.out.cols(); ++c) to[c] += share * (from[c] - to[c]);
    into.lse[g] = top + std::log(a + b);
    into.best[g] = std::max(into.best[g], part.best[g]);
  }
}

double relative_error(const float* out, const float* truth, std::size_t dv) {
  double error = 0, power = 0;
  for (std::size_t c = 0; c < dv; ++c) {
    const double wanted = truth[c], off = double{out[c]} - wanted;
    error += off * off;
    power += wanted * wanted;
  }
  return power > 0 ? std::sqrt(error / power) : 0.0;
}

}  // namespace keyseek
