/// Partial attention over a set of tokens, and the merge of such parts.
///
/// Softmax attention over a union of disjoint sets of tokens follows from the attention over
/// each of them and the logarithm of its sum of exponentials (the state of FlashAttention's
/// and FlashInfer's split softmax). So tokens that are attended exactly, tokens that were
/// retrieved, and a summary of the rest are each one `Partial`, computed anywhere and merged
/// in any order.
///
/// Logits follow from <q, k> as `Logits` says; where that is only a scale, the number alone will
/// do. Values are owned by the caller, functions keep no state; one AttendScratch for each thread.
///
///     keyseek::AttendScratch scratch;
///     keyseek::Partial near, far;
///     keyseek::attend(queries, window_keys, window_values, scale, scratch, near);
///     keyseek::attend_hits(hits, values, scale, scratch, far);  // logits of the search, reused
///     keyseek::merge(far, near);                                // near.out is the attention
#pragma once

#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

#include "keyseek/matrix.hpp"
#include "keyseek/search.hpp"

namespace keyseek {

/// How an inner product becomes a logit: scale * <q, k>, and with a soft-cap c (Gemma 2, arXiv
/// 2408.00118) c * tanh(scale * <q, k> / c). That rises with <q, k>: the best keys stay the best.
struct Logits {
  float scale = 1.0F;    ///< above 0
  float softcap = 0.0F;  ///< c; 0: none

  Logits() = default;
  // NOLINTNEXTLINE(google-explicit-constructor): a scale alone is what most models have
  constexpr Logits(float scale_, float softcap_ = 0.0F) : scale(scale_), softcap(softcap_) {}

  [[nodiscard]] double capped(double scaled) const {
    return softcap > 0.0F ? double{softcap} * std::tanh(scaled / double{softcap}) : scaled;
  }
  [[nodiscard]] double of(float product) const { return capped(double{scale} * double{product}); }
  void validate() const;  ///< throws Error(invalid_argument)
  friend bool operator==(const Logits&, const Logits&) = default;
};

/// Attention of G queries over some tokens.
///
/// Some models (gpt-oss's `s_aux`, "learned sinks") give each query head a *null logit*: it takes
/// part in the softmax like a token's, but has no value, so that a head can attend to nothing. It
/// is one more part, of out 0, and in `lse`; not in `best`, since there is no key like it.
struct Partial {
  Matrix<float> out;  ///< [G, dv] means of the values by softmax weight; zero over no token
  /// [G] log of the sum of exp(logit), natural; -infinity over nothing.
  std::vector<float> lse;
  std::vector<float> best;  ///< [G] the largest logit; -infinity over no token

  /// Over no token; memory is reused where it fits. `null_logits`: none, or of the query heads,
  /// which take turns among the queries.
  void reset(std::size_t queries, std::size_t dv, std::span<const float> null_logits = {});
  /// That of queries [first, first + count).
  [[nodiscard]] Partial slice(std::size_t first, std::size_t count) const;
};

/// Values as stored: rows of any element type, each times a scale of its own if there are any.
struct ValuesView {
  AnyMatrixView rows;             ///< [n, dv]
  const float* scales = nullptr;  ///< [n], or null: all are 1

  /// Bytes of one value, its scale included.
  [[nodiscard]] std::size_t row_bytes() const noexcept {
    return rows.row_bytes() + (scales == nullptr ? 0 : sizeof(float));
  }
  [[nodiscard]] ValuesView slice(std::size_t first, std::size_t count) const {
    return {rows.slice(first, count), scales == nullptr ? nullptr : scales + first};
  }
};

/// Memory that attention works in; one per thread at a time.
struct AttendScratch {
  AlignedVector<float> weights;
  std::vector<float> best, sum;
};

/// Attention of `queries` [G, d], G <= 64, over all rows of `keys` [n, d] and `values` [n, dv].
/// n may be 0. Throws Error on shapes that do not match; values are not searched for NaN.
void attend(MatrixView<float> queries, AnyMatrixView keys, ValuesView values, Logits logits,
            AttendScratch& scratch, Partial& out);

/// The same over the tokens that `ids` names, each below keys.rows; of one that is named twice
/// both count.
void attend_ids(MatrixView<float> queries, AnyMatrixView keys, ValuesView values,
                std::span<const Id> ids, Logits logits, AttendScratch& scratch, Partial& out);

/// Query g over the tokens of hits.row_ids(g), whose inner products hits.row_scores(g) are.
void attend_hits(const Hits& hits, ValuesView values, Logits logits, AttendScratch& scratch,
                 Partial& out);

/// Makes `into` the attention over both sets of tokens, which must be disjoint. `into` may be
/// a default Partial: it then becomes `part`.
void merge(const Partial& part, Partial& into);

/// |out - truth| / |truth| of two vectors [dv]; 0 when truth is zero.
[[nodiscard]] double relative_error(const float* out, const float* truth, std::size_t dv);

}  // namespace keyseek
