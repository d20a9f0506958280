/// Keys as stored, encoded in 8 bits, and reranked.
///
/// Keys stay in the precision they were given in (f32, f16, bf16, i8). Beside them
/// may stand 8-bit codes for the traversal: key i is mean + scale_i * channel * code_i.
/// Subtracting the mean changes every score of one query by the same amount, and
/// the per-channel scale moves magnitude from keys to queries where it costs least,
/// so that a pool a little larger than k already holds the true top k.
///
/// Immutable after `encode`, hence thread-safe; copies share the bytes.
///
///     auto store = keyseek::KeyStore::encode(keys, training_queries);
///     auto encoded = store.encode_queries(queries);    // 8-bit, for the traversal
///     keyseek::AnyMatrixView exact = store.stored();   // as given, for the rerank
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "keyseek/execution.hpp"
#include "keyseek/matrix.hpp"

namespace keyseek {

/// Where the codes live: rows for random access, blocks of 16 interleaved keys for scans. Or there
/// are none, beside a sketch.
enum class CodeLayout : std::uint8_t { rows = 0, blocks = 1, none = 2 };
/// "rows", "blocks" or "none".
[[nodiscard]] std::string_view to_string(CodeLayout layout) noexcept;

/// A tile of G queries in the codes' space.
struct EncodedQueries {
  Matrix<std::int8_t> codes;   ///< [G, code_cols], zero beyond d
  AlignedVector<float> scale;  ///< [G] score = scale[g] * scale_i * (dot - correction[g])
  AlignedVector<std::int32_t> correction;  ///< [G] 128 * sum of the query's codes
  AlignedVector<float> offset;             ///< [G] <q, mean>: added, approximates the inner product
  AlignedVector<float> row;                ///< scratch of encode_queries
};

class KeyStore {
 public:
  static constexpr std::size_t kBlock = 16;  ///< keys of an interleaved block

  KeyStore() = default;

  /// Encodes `keys` [n, d], whose bytes it shares. `queries` [m, d] (may be empty) say how much
  /// each channel matters. Throws Error on n = 0, d = 0 or above 133,000, NaN or infinity, numbers
  /// whose inner products may not fit f32, or shapes that do not match.
  [[nodiscard]] static KeyStore encode(AnyMatrix keys, MatrixView<float> queries,
                                       CodeLayout layout = CodeLayout::rows,
                                       const Execution& run = {});
  /// Does the same with a copy of `keys`.
  [[nodiscard]] static KeyStore encode(AnyMatrixView keys, MatrixView<float> queries,
                                       CodeLayout layout = CodeLayout::rows,
                                       const Execution& run = {}) {
    return encode(AnyMatrix::copy_of(keys), queries, layout, run);
  }
  /// The same keys and codes, which are in rows, in blocks.
  [[nodiscard]] KeyStore in_blocks() const;

  /// The store with `keys` behind its own, encoded with the same mean and channels. To borrowed
  /// keys come such as are of the same memory.
  [[nodiscard]] KeyStore appended(AnyMatrixView keys) const;
  /// The store of its first `count` keys, at least 1 and no more than there are.
  [[nodiscard]] KeyStore truncated(std::size_t count) const;

  [[nodiscard]] std::size_t size() const noexcept { return keys_.rows(); }
  [[nodiscard]] std::size_t dim() const noexcept { return keys_.cols(); }
  [[nodiscard]] AnyMatrixView stored() const noexcept { return keys_.view(); }
  [[nodiscard]] CodeLayout layout() const noexcept { return layout_; }
  /// Bytes of a code row: d rounded up to a multiple of 16.
  [[nodiscard]] std::size_t code_cols() const noexcept { return (dim() + 15) / 16 * 16; }
  /// Codes plus 128, in `layout()`.
  [[nodiscard]] const std::uint8_t* codes() const noexcept { return codes_.data(); }
  [[nodiscard]] const float* scales() const noexcept { return scales_.data(); }
  /// No key is longer; by codes some way above the longest.
  [[nodiscard]] double longest() const noexcept { return longest_; }
  /// Bytes beyond the stored keys.
  [[nodiscard]] std::size_t code_bytes() const noexcept;

  [[nodiscard]] EncodedQueries encode_queries(MatrixView<float> queries) const;
  /// As above, into an object that is reused (no allocation once it is large enough).
  void encode_queries(MatrixView<float> queries, EncodedQueries& out) const;

  /// The parts, for the file format.
  struct Parts {
    AnyMatrix keys;
    SharedArray<std::uint8_t> codes;
    SharedArray<float> scales;   ///< [n]
    SharedArray<float> mean;     ///< [d]
    SharedArray<float> channel;  ///< [d], positive
    CodeLayout layout = CodeLayout::rows;
    double longest = 0;  ///< without codes: of the keys; codes say it themselves
  };
  [[nodiscard]] Parts parts() const;
  /// Throws Error(corrupt) when the parts contradict each other.
  [[nodiscard]] static KeyStore from_parts(Parts parts);

 private:
  void set_codes(AlignedVector<std::uint8_t> codes, AlignedVector<float> scales);
  [[nodiscard]] double longest_by_codes() const;

  AnyMatrix keys_;
  SharedArray<std::uint8_t> codes_;
  SharedArray<float> scales_;
  SharedArray<float> mean_;
  SharedArray<float> channel_;
  double longest_ = 0;
  CodeLayout layout_ = CodeLayout::rows;
};

}  // namespace keyseek
