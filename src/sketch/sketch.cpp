/// Builds sketches of keys, extends them, and puts queries in their coordinates.
#include "keyseek/sketch.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/fail.hpp"
#include "base/parallel.hpp"
#include "matrix/even_rows.hpp"
#include "score/channel_means.hpp"
#include "score/codes.hpp"
#include "score/projected.hpp"
#include "score/range.hpp"
#include "score/rows.hpp"
#include "sketch/coordinates.hpp"
#include "sketch/depth.hpp"

namespace keyseek {
namespace {

/// Writes the codes of `keys` behind `first` others.
void encode(AnyMatrixView keys, std::size_t first, const AnyMatrix& map,
            const SharedArray<float>& mean, const Execution& run,
            AlignedVector<std::uint8_t>& codes, AlignedVector<float>& scales) {
  const std::size_t d = keys.cols, r = map.rows(), n = first + keys.rows;
  codes.resize(blocked_rows(n) * code_cols(r) / 2, 0x88);
  scales.resize(blocked_rows(n), 0.0F);
  parallel_for(keys.rows, 256, run, "sketching keys", [&](std::size_t begin, std::size_t end, int) {
    std::vector<float> row(d), coordinates(r);
    std::vector<std::uint8_t> code(code_cols(r));
    for (std::size_t i = begin; i < end; ++i) {
      keys.copy_row(i, row.data());
      for (std::size_t j = 0; j < d; ++j) row[j] -= mean[j];
      score_rows(rows_of(map.view()), {row.data(), 1, d}, coordinates.data());
      scales[first + i] = encode_key_in_4_bits(coordinates.data(), r, code.data());
      place_in_half_block(code.data(), code.size(), first + i, codes.data());
    }
  });
}

void check(bool ok, const char* what) {
  if (!ok) fail(ErrorCode::corrupt, "sketch: {}", what);
}

/// A sketch whose depth was not measured.
Sketch of_maps(const SketchMaps& maps, AnyMatrixView keys, const Execution& run) {
  Sketch::Parts parts;
  parts.query_map = AnyMatrix::copy_of(AnyMatrixView::of(maps.queries.view()));
  parts.key_map = AnyMatrix::copy_of(AnyMatrixView::of(maps.keys.view()));
  parts.factor = maps.factor;
  parts.mean = SharedArray(channel_means(keys, run));
  AlignedVector<std::uint8_t> codes;
  AlignedVector<float> scales;
  encode(keys, 0, parts.key_map, parts.mean, run, codes, scales);
  parts.codes = SharedArray(std::move(codes));
  parts.scales = SharedArray(std::move(scales));
  return Sketch::from_parts(std::move(parts), keys.rows);
}

/// Time of a search of n keys for one query, but for what does not depend on the coordinates: the
/// look at all, and the exact scores of those that go on (many of them shared by a group's
/// queries). Nanoseconds on an AVX-512 core; only their ratio matters.
double search_cost(std::size_t n, std::size_t dim, double pool) {
  return 0.005 * static_cast<double>(n * dim) + 25.0 * pool;
}

/// How many coordinates make a search cheapest, by sketches of some of the keys: more, as long as
/// the fewer keys that then go on are worth it.
std::size_t cheapest_dim(const SketchAxes& axes, AnyMatrixView keys, MatrixView<float> queries,
                         const Execution& run) {
  constexpr std::size_t kSample = 8192, kFewest = 32, kStep = 16;
  const Matrix<float> sample = even_rows(keys, kSample);
  const AnyMatrixView some = AnyMatrixView::of(sample.view());
  std::size_t best = std::min(kFewest, axes.most);
  double least = std::numeric_limits<double>::infinity();
  // Each try takes some more than the one before.
  for (std::size_t dim = best; dim <= axes.most; dim += std::max(kStep, dim / 3 / kStep * kStep)) {
    const Sketch sketch = of_maps(axes.leading(dim), some, run);
    const auto depth = measure_depth(sketch, some, keys.rows, queries, run);
    const double pool = depth.of_hundred * static_cast<double>(keys.rows);
    const double cost = search_cost(keys.rows, dim, pool);
    if (cost >= least) break;
    least = cost;
    best = dim;
  }
  return best;
}

}  // namespace

void SketchParams::validate() const {
  require(dim <= 4096, "sketch.dim is {}, at most 4096", dim);
  require(residual >= 0.0 && residual < 1.0, "sketch.residual is {}, must be in [0, 1)", residual);
  require(std::isfinite(ridge) && ridge >= 0.0, "sketch.ridge is {}, must be at least 0", ridge);
}

Sketch Sketch::build(AnyMatrixView keys, MatrixView<float> queries, const SketchParams& params,
                     const Execution& run) {
  params.validate();
  run.validate();
  require(keys.rows > 0, "keys is empty");
  require(keys.cols > 0, "keys have dimension 0");
  require(queries.rows > 0, "queries is empty");
  require(queries.cols == keys.cols, "queries have dimension {}, keys have {}", queries.cols,
          keys.cols);
  require_dimension(keys.cols);
  require_range(keys, "keys");
  require_range(AnyMatrixView::of(queries), "queries");
  require_products(queries, keys, "queries");
  const SketchAxes axes = sketch_axes(keys, queries, params, run);
  const std::size_t r = axes.wanted > 0 ? axes.wanted : cheapest_dim(axes, keys, queries, run);
  Sketch sketch = of_maps(axes.leading(r), keys, run);
  sketch.parts_.depth = measure_depth(sketch, keys, keys.rows, queries, run);
  return sketch;
}

Sketch Sketch::appended(AnyMatrixView keys) const {
  require(!empty(), "keys cannot be appended to an empty sketch");
  require(keys.cols == parts_.key_map.cols(), "keys have dimension {}, the sketch has {}",
          keys.cols, parts_.key_map.cols());
  require_range(keys, "keys");
  Sketch sketch = *this;
  sketch.size_ += keys.rows;
  AlignedVector<std::uint8_t> codes(parts_.codes.begin(), parts_.codes.end());
  AlignedVector<float> scales(parts_.scales.begin(), parts_.scales.end());
  encode(keys, size_, parts_.key_map, parts_.mean, {1, {}}, codes, scales);
  sketch.parts_.codes = SharedArray(std::move(codes));
  sketch.parts_.scales = SharedArray(std::move(scales));
  return sketch;
}

Sketch Sketch::truncated(std::size_t count) const {
  require(count >= 1 && count <= size_, "count is {}, must be in [1, {}]", count, size_);
  Sketch sketch = *this;
  sketch.size_ = count;
  AlignedVector<std::uint8_t> codes(parts_.codes.begin(), parts_.codes.end());
  AlignedVector<float> scales(parts_.scales.begin(), parts_.scales.end());
  truncate_blocks(count, code_bytes(), 0x88, codes, scales);
  sketch.parts_.codes = SharedArray(std::move(codes));
  sketch.parts_.scales = SharedArray(std::move(scales));
  return sketch;
}

std::size_t Sketch::bytes() const noexcept {
  return parts_.query_map.bytes() + parts_.key_map.bytes() + parts_.mean.bytes() +
         parts_.codes.bytes() + parts_.scales.bytes();
}

void Sketch::encode_queries(MatrixView<float> queries, EncodedQueries& out,
                            std::vector<float>& scratch) const {
  require(!empty(), "the sketch is empty: build one first");
  require(queries.cols == parts_.query_map.cols(), "queries have dimension {}, the sketch has {}",
          queries.cols, parts_.query_map.cols());
  scratch.resize(2 * queries.rows * dim());
  float* projected = scratch.data() + queries.rows * dim();
  project(queries, parts_.query_map.view(), projected, scratch.data());
  encode_projected({projected, queries.rows, dim()}, out);
  for (float& scale : out.scale) scale *= parts_.factor;
  // A code is 8 where the corrections expect 128.
  for (std::int32_t& correction : out.correction) correction /= 16;
  out.offset.resize(queries.rows);
  for (std::size_t g = 0; g < queries.rows; ++g)
    out.offset[g] =
        std::inner_product(parts_.mean.begin(), parts_.mean.end(), queries.row(g), 0.0F);
}

Sketch Sketch::from_parts(Parts parts, std::size_t n) {
  const std::size_t r = parts.query_map.rows(), d = parts.query_map.cols();
  check(n > 0 && r > 0 && r <= d, "no coordinates");
  check(parts.query_map.dtype() == Dtype::f16, "the queries' map is wrong");
  check(parts.key_map.dtype() == Dtype::f32 && parts.key_map.rows() == r &&
            parts.key_map.cols() == d && parts.mean.size() == d,
        "the keys' map does not match the queries'");
  check(parts.codes.size() == blocked_rows(n) * keyseek::code_cols(r) / 2,
        "codes do not match the keys");
  check(parts.scales.size() == blocked_rows(n), "scales do not match the keys");
  for (std::size_t i = 0; i < parts.scales.size(); ++i) {
    const float scale = parts.scales[i];
    check(i < n ? std::isfinite(scale) && scale > 0.0F : scale == 0.0F, "a scale is wrong");
  }
  check(std::isfinite(parts.factor) && parts.factor > 0.0F, "the factor is wrong");
  const auto& [ten, hundred] = parts.depth;
  check(ten > 0 && hundred >= ten && hundred <= 1, "the depth is wrong");
  for (const float x : parts.mean) check(std::isfinite(x), "a mean is not finite");
  Sketch sketch;
  sketch.parts_ = std::move(parts);
  sketch.size_ = n;
  return sketch;
}

}  // namespace keyseek
