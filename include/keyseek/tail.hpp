/// The tail: a few trained vectors that stand for every key that is not retrieved.
///
/// Attention is often diffuse: beyond the keys worth retrieving, thousands of others hold a
/// share of the mass together. The tail summarises how the (shifted) prefill queries see
/// those: C key vectors with a logit bias per query head and C value vectors per query head,
/// appended to the softmax like C more tokens. Recipe: k-means of the keys weighted by the
/// attention they get, biases that give each cluster its share of mass, values by ridge
/// regression on the queries' true tail outputs, and a regressed correction of the tail's total
/// mass, which no query may exceed by more than training saw. A tail is trained for what is
/// retrieved beside it: those keys are not in it.
///
/// `observe` computes once what full attention gives the training queries; tails for several k
/// and their errors on held-out queries follow from that. Values; functions keep no state.
///
///     auto seen = keyseek::observe(train, group, exact, keys, values, scale, {.top = 256});
///     auto tail = keyseek::Tail::fit(seen, keys, values, 100, {.vectors = 64});
///     keyseek::attend_hits(hits, values, scale, scratch, retrieved);
///     keyseek::attend_tail(queries, hits, retrieved, tail, scratch, part);  // to be merged too
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "keyseek/attention.hpp"
#include "keyseek/execution.hpp"
#include "keyseek/matrix.hpp"
#include "keyseek/search.hpp"

namespace keyseek {

struct ObserveParams {
  std::size_t top = 256;  ///< best keys kept per query, the largest k that can be asked for
};

/// What full attention gives m * G queries; rows as in TrainingQueries.
struct Observations {
  std::size_t group = 1;
  Logits logits;
  Matrix<float> queries;     ///< [m * G, d]
  Partial exact;             ///< over what is always attended: sink, window, null logits
  Partial rest;              ///< over all indexed keys
  Matrix<Id> top_ids;        ///< [m * G, top] best indexed keys, best first
  Matrix<float> top_scores;  ///< [m * G, top] their inner products
  /// [n, G] sum over the queries of a head of the attention that key i gets, the exact tokens
  /// counted in.
  Matrix<float> mass;

  [[nodiscard]] std::size_t steps() const { return queries.rows() / group; }
};

/// Attention of `queries` [m * G, d] over `keys` [n, d] and their `values`; `exact` is their
/// attention over all else (m * G rows). Two passes over all keys for every query: a
/// few hundred steps are enough. Throws Error on shapes that do not match, n = 0 or m = 0.
[[nodiscard]] Observations observe(MatrixView<float> queries, std::size_t group,
                                   const Partial& exact, AnyMatrixView keys, ValuesView values,
                                   Logits logits, const ObserveParams& params = {},
                                   const Execution& run = {});

struct TailParams {
  std::size_t vectors = 64;    ///< C
  std::size_t iterations = 8;  ///< of k-means
  double ridge = 0.1;          ///< relative to the mean diagonal of the normal equations
  std::uint64_t seed = 1;

  void validate() const;  ///< throws Error(invalid_argument)
};

/// Says for each key which cluster it is in.
using KeyClusters = std::vector<std::uint32_t>;

class Tail {
 public:
  Tail() = default;  ///< empty: attends to nothing
  /// For retrieval of the kept[q] best keys of observed query q, each <= seen.top_ids.cols().
  /// `clusters` of the keys may be there already; null: they are made.
  [[nodiscard]] static Tail fit(const Observations& seen, AnyMatrixView keys, ValuesView values,
                                std::span<const std::size_t> kept, const TailParams& params = {},
                                const KeyClusters* clusters = nullptr);
  /// The costliest step of a fit. Clusters made for one number of kept keys serve others.
  [[nodiscard]] static KeyClusters cluster(const Observations& seen, AnyMatrixView keys,
                                           std::span<const std::size_t> kept,
                                           const TailParams& params = {});
  /// The same with `k` for all queries.
  [[nodiscard]] static Tail fit(const Observations& seen, AnyMatrixView keys, ValuesView values,
                                std::size_t k, const TailParams& params = {});

  [[nodiscard]] bool empty() const noexcept { return vectors() == 0; }
  [[nodiscard]] std::size_t vectors() const noexcept { return parts_.keys.rows(); }
  [[nodiscard]] std::size_t group() const noexcept { return parts_.correction.rows(); }
  [[nodiscard]] std::size_t bytes() const noexcept;

  /// log of the tail's mass = LSE of its logits + correction . features; see tail_mass.hpp.
  static constexpr std::size_t kFeatures = 6;
  static constexpr std::size_t kLimits = 3;

  struct Parts {
    AnyMatrix keys;            ///< [C, d] in f16; in f32 where f16 does not reach
    Matrix<float> bias;        ///< [C, G], added to logits, after a soft-cap
    AnyMatrix values;          ///< like the keys [G * C, dv], head after head
    Matrix<float> correction;  ///< [G, kFeatures]
    /// [G, kLimits] seen in training: the least and the largest correction, and the largest log of
    /// the true mass of what is not retrieved, less the logit of the last retrieved key.
    Matrix<float> limits;
    Logits logits;  ///< that it was trained for
  };
  [[nodiscard]] const Parts& parts() const noexcept { return parts_; }
  /// Throws Error(corrupt) when the parts contradict each other.
  [[nodiscard]] static Tail from_parts(Parts parts);

 private:
  Parts parts_;
};

/// Attention of `queries` [G, d] over the tail, given the hits retrieved beside it and their
/// attention. Throws Error when `tail` is empty or shapes do not match.
void attend_tail(MatrixView<float> queries, const Hits& hits, const Partial& retrieved,
                 const Tail& tail, AttendScratch& scratch, Partial& out);

/// Fills the hits of one observed step.
using Retrieve = std::function<void(std::size_t step, Hits& hits)>;

/// |approximate - full| / |full| of each observed query's attention output when `retrieve` says
/// which keys are attended beside the exact tokens, and `tail` (may be empty) stands for the rest.
[[nodiscard]] std::vector<float> attention_errors(const Observations& seen, ValuesView values,
                                                  const Tail& tail, const Retrieve& retrieve);
/// The same when the kept[q] best keys of query q are retrieved.
[[nodiscard]] std::vector<float> attention_errors(const Observations& seen, ValuesView values,
                                                  std::span<const std::size_t> kept,
                                                  const Tail& tail);
/// The same with `k` for all queries.
[[nodiscard]] std::vector<float> attention_errors(const Observations& seen, ValuesView values,
                                                  std::size_t k, const Tail& tail);

}  // namespace keyseek
