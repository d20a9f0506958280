/// A first look at every key: few coordinates of each, in 4 bits.
///
/// Queries see keys mostly along few directions. With S the second moment of queries q and k the
/// keys less their mean, the r coordinates of k that leave the least of E (q.k)^2 to the others
/// are the principal components of S^(1/2) k (a reduced-rank regression; LeanVec, arXiv
/// 2312.16335, looks for such coordinates of keys whose queries come from elsewhere). Unlike an
/// index that learned which keys were wanted, a sketch only has to know directions, so it also
/// ranks the one key well that no query wanted before. A multiple of the identity is mixed into S
/// for the same reason: a direction that no query looked along keeps a small weight.
///
/// Coordinates of falling power would waste most of their bits, so they are rotated until all have
/// about the same (as TurboQuant, arXiv 2504.19874, does with whole vectors): then four bits lose
/// about a hundredth of it, which is less than what the coordinates left out hold.
///
/// Immutable and thread-safe; copies share the bytes.
///
///     auto sketch = keyseek::Sketch::build(keys, training_queries);
///     keyseek::EncodedQueries encoded;
///     std::vector<float> scratch;
///     sketch.encode_queries(queries, encoded, scratch);  // a sketch index scans with these
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "keyseek/execution.hpp"
#include "keyseek/key_store.hpp"
#include "keyseek/matrix.hpp"

namespace keyseek {

struct SketchParams {
  /// Coordinates of a key, at most its dimension; 0: as `residual` says.
  std::size_t dim = 0;
  /// Share of E (q.k)^2, with the ridge, that may be left out, by a multiple of 16 coordinates. 0:
  /// as many as make a search cheapest, measured on some of the keys; of vectors of more than 640
  /// dimensions as with 0.07.
  double residual = 0;
  double ridge = 0.5;  ///< weight of the identity in S, in units of S's mean eigenvalue

  void validate() const;  ///< throws Error(invalid_argument)
};

class Sketch {
 public:
  Sketch() = default;
  /// Of `keys` [n, d], for queries like `queries` [m, d]. Both are sampled, evenly, down to what a
  /// covariance needs. Throws Error on empty or mismatching input.
  [[nodiscard]] static Sketch build(AnyMatrixView keys, MatrixView<float> queries,
                                    const SketchParams& params = {}, const Execution& run = {});
  /// The sketch with `keys` [m, d] behind its own, in the same coordinates.
  [[nodiscard]] Sketch appended(AnyMatrixView keys) const;
  /// The sketch of its first `count` keys, at least 1 and no more than there are.
  [[nodiscard]] Sketch truncated(std::size_t count) const;

  [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] std::size_t dim() const noexcept { return parts_.query_map.rows(); }
  /// Bytes of a key's codes: half of dim rounded up to a multiple of 16.
  [[nodiscard]] std::size_t code_bytes() const noexcept { return (dim() + 15) / 16 * 8; }
  [[nodiscard]] std::size_t bytes() const noexcept;

  /// Codes plus 8, in blocks of KeyStore::kBlock interleaved keys, and a scale for each key.
  [[nodiscard]] const std::uint8_t* codes() const noexcept { return parts_.codes.data(); }
  [[nodiscard]] const float* scales() const noexcept { return parts_.scales.data(); }
  /// `queries` [G, d] in the sketch's coordinates. Scores lack <q, mean>, which is the offset.
  void encode_queries(MatrixView<float> queries, EncodedQueries& out,
                      std::vector<float>& scratch) const;

  /// How many keys go on from the order of the scores so that about 99 % of a query's k best are
  /// among them: measured on some of the queries it was built for.
  [[nodiscard]] std::size_t pool(std::size_t k) const noexcept;

  /// Share of all keys that has to go on so that all but a few of the best are among them.
  struct Depth {
    double of_ten = 1;      ///< of a query's ten best keys
    double of_hundred = 1;  ///< of its hundred best
  };

  struct Parts {
    AnyMatrix query_map;              ///< f16 [dim, d]: factor * row . q is a coordinate
    AnyMatrix key_map;                ///< f32 [dim, d]: row . (k - mean) is a coordinate
    SharedArray<float> mean;          ///< [d], of the keys
    SharedArray<std::uint8_t> codes;  ///< n rounded up to blocks
    SharedArray<float> scales;        ///< likewise, 0 for padding
    float factor = 1;                 ///< of query_map
    Depth depth;
  };
  [[nodiscard]] const Parts& parts() const noexcept { return parts_; }
  /// Of n keys. Throws Error(corrupt) when the parts contradict each other or n.
  [[nodiscard]] static Sketch from_parts(Parts parts, std::size_t n);

 private:
  Parts parts_;
  std::size_t size_ = 0;
};

}  // namespace keyseek
