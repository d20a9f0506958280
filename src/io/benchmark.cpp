/// Reads and writes the HDF5 files of vector benchmarks.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/fail.hpp"
#include "io/hdf5_reader.hpp"
#include "io/hdf5_writer.hpp"
#include "keyseek/io.hpp"

namespace keyseek::io {
namespace {

// --- what a benchmark must be, read or written -----------------------------------------

/// The first id that names no key, as a sentence.
std::optional<std::string> id_fault(const char* name, MatrixView<Id> ids, std::size_t keys) {
  for (std::size_t i = 0; i < ids.rows; ++i) {
    for (std::size_t j = 0; j < ids.cols; ++j) {
      const Id id = ids.row(i)[j];
      if (id == kNoId || id < keys) continue;
      return fmt::format("{}: row {} names key {}, but train has {}", name, i, id, keys);
    }
  }
  return std::nullopt;
}

/// Lists of `queries` rows, as a sentence when they are not.
std::optional<std::string> list_fault(const char* name, MatrixView<Id> ids, const char* of,
                                      std::size_t queries, std::size_t keys) {
  if (ids.empty()) return std::nullopt;
  if (ids.rows != queries) {
    return fmt::format("{} has {} rows, but {} has {}", name, ids.rows, of, queries);
  }
  if (ids.cols > keys) {
    return fmt::format("{} has k = {}, but train has {} keys", name, ids.cols, keys);
  }
  return id_fault(name, ids, keys);
}

/// What the parts of `b` contradict each other in; datasets by their names in the file.
std::optional<std::string> fault(const Benchmark& b) {
  const std::size_t n = b.keys.rows(), d = b.keys.cols(), steps = b.group * b.tuning_steps;
  if (n == 0 || d == 0) return fmt::format("train is {} x {}", n, d);
  if (b.queries.empty()) return "test has no rows";
  for (const auto& [name, part] : {std::pair("test", &b.queries), std::pair("learn", &b.learn),
                                   std::pair("tuning", &b.tuning)}) {
    if (part->empty() || part->cols() == d) continue;
    return fmt::format("{} has dimension {}, but train has {}", name, part->cols(), d);
  }
  if (b.group == 0 || b.queries.rows() % b.group != 0) {
    return fmt::format("test has {} rows, no multiple of group {}", b.queries.rows(), b.group);
  }
  if (!b.tuning.empty() && (steps == 0 || b.tuning.rows() % steps != 0)) {
    return fmt::format("tuning has {} rows, no multiple of group {} x tuning_steps {}",
                       b.tuning.rows(), b.group, b.tuning_steps);
  }
  const auto& scores = b.truth_scores;
  if (!scores.empty() &&
      (scores.rows() != b.truth_ids.rows() || scores.cols() != b.truth_ids.cols())) {
    return fmt::format("distances are {} x {}, but neighbors {} x {}", scores.rows(), scores.cols(),
                       b.truth_ids.rows(), b.truth_ids.cols());
  }
  if (auto found = list_fault("neighbors", b.truth_ids, "test", b.queries.rows(), n)) return found;
  return list_fault("learn_neighbors", b.learn_ids, "learn", b.learn.rows(), n);
}

// --- distances to inner products -------------------------------------------------------

double inner_product(std::span<const float> a, std::span<const float> b) {
  double sum = 0;
  for (std::size_t j = 0; j < a.size(); ++j) sum += double{a[j]} * double{b[j]};
  return sum;
}

std::vector<float> row_of(AnyMatrixView m, std::size_t i) {
  std::vector<float> row(m.cols);
  m.copy_row(i, row.data());
  return row;
}

/// The cosine is the inner product only where all vectors have length 1.
void require_unit(const std::string& path, const std::string& distance, const char* name,
                  AnyMatrixView vectors) {
  for (std::size_t i = 0; i < vectors.rows; ++i) {
    const auto row = row_of(vectors, i);
    const double length = std::sqrt(inner_product(row, row));
    if (std::abs(length - 1) < 2e-3) continue;  // f16 rounds by up to 5e-4
    fail(ErrorCode::unsupported, "{}: distance is {}, but row {} of {} has length {}, not 1", path,
         distance, i, name, length);
  }
}

/// Names the row that makes an inner product NaN or infinite.
void require_finite_parts(const std::string& path, const Benchmark& b) {
  try {
    require_finite(b.keys.view(), "train");
    require_finite(AnyMatrixView::of(b.queries.view()), "test");
    require_finite(AnyMatrixView::of(b.truth_scores.view()), "distances");
  } catch (const Error& e) {
    fail(e.code(), "{}: {}", path, e.what());
  }
}

/// 0 when the file stores -inner product, 1 when it stores 1 - inner product; decided by
/// the first neighbour of a query that has one.
float distance_of_zero(const std::string& path, const Benchmark& b) {
  for (std::size_t i = 0; i < b.truth_ids.rows(); ++i) {
    const Id id = b.truth_ids.row(i)[0];
    if (id == kNoId) continue;
    const auto key = row_of(b.keys.view(), id);
    const std::span query(b.queries.row(i), key.size());
    const double score = inner_product(query, key);
    const double stored = b.truth_scores.row(i)[0];
    const double off_by = std::min(std::abs(stored + score), std::abs(stored + score - 1));
    const double lengths = std::sqrt(inner_product(query, query) * inner_product(key, key));
    if (!std::isfinite(score) || !std::isfinite(stored)) {
      require_finite_parts(path, b);
    }
    if (!(off_by <= 1e-2 * lengths + 1e-3)) {
      fail(ErrorCode::corrupt,
           "{}: distances: row {} holds {}, neither -{} nor 1 - {} (inner product with key {})",
           path, i, stored, score, score, id);
    }
    return std::abs(stored + score) <= std::abs(stored + score - 1) ? 0.0F : 1.0F;
  }
  return 0.0F;
}

void check_distance(const std::string& path, const std::string& distance, const Benchmark& b) {
  if (distance == "ip" || distance == "dot") return;
  if (distance != "angular" && distance != "cosine" && distance != "normalized") {
    fail(ErrorCode::unsupported, "{}: distance is '{}', must be ip, or angular of unit vectors",
         path, distance);
  }
  require_unit(path, distance, "train", b.keys.view());
  require_unit(path, distance, "test", AnyMatrixView::of(b.queries.view()));
}

Matrix<float> negated(MatrixView<float> values, float plus) {
  Matrix<float> out(values.rows, values.cols);
  for (std::size_t i = 0; i < values.rows; ++i) {
    std::transform(values.row(i), values.row(i) + values.cols, out.row(i),
                   [plus](float x) { return plus - x; });
  }
  return out;
}

// --- parts of the file -----------------------------------------------------------------

Matrix<float> read_floats(const hdf5::Reader& file, const std::string& name) {
  return file.has(name) ? file.dataset(name, 2).read_floats() : Matrix<float>();
}
Matrix<Id> read_id_lists(const hdf5::Reader& file, const std::string& name) {
  return file.has(name) ? file.dataset(name, 2).read_ids() : Matrix<Id>();
}

void write_floats(hdf5::Writer& file, const std::string& name, const Matrix<float>& m) {
  if (!m.empty()) file.write(name, {m.rows(), m.cols()}, hdf5::Element::f32, m.data());
}

/// As i32, where kNoId is -1 bit by bit, unless an id needs more.
void write_id_lists(hdf5::Writer& file, const std::string& name, const Matrix<Id>& ids,
                    std::size_t keys) {
  const auto element = keys <= (std::size_t{1} << 31) ? hdf5::Element::i32 : hdf5::Element::u32;
  if (!ids.empty()) file.write(name, {ids.rows(), ids.cols()}, element, ids.data());
}

void write_keys(hdf5::Writer& file, AnyMatrixView keys) {
  const std::vector<std::size_t> extents = {keys.rows, keys.cols};
  if (keys.dtype == Dtype::bf16) {  // HDF5 readers know no bf16; f32 holds every value of it
    file.write("train", extents, hdf5::Element::f32, to_f32(keys).data());
    return;
  }
  const auto element = keys.dtype == Dtype::f32   ? hdf5::Element::f32
                       : keys.dtype == Dtype::f16 ? hdf5::Element::f16
                                                  : hdf5::Element::i8;
  const AnyMatrix dense = keys.is_dense() ? AnyMatrix::look_at(keys) : AnyMatrix::copy_of(keys);
  file.write("train", extents, element, dense.view().data);
}

}  // namespace

Benchmark read_benchmark(const std::filesystem::path& path, const Hdf5Access& access) {
  const std::string where = path.string();
  const hdf5::Reader file(path, access);
  const auto distance = file.text("/", "distance");
  if (!distance) fail(ErrorCode::corrupt, "{}: attribute distance is missing", where);

  Benchmark b;
  b.keys = file.dataset("train", 2).read();
  b.queries = file.dataset("test", 2).read_floats();
  b.learn = read_floats(file, "learn");
  b.learn_ids = read_id_lists(file, "learn_neighbors");
  b.truth_ids = read_id_lists(file, "neighbors");
  b.truth_scores = read_floats(file, "distances");
  b.tuning = read_floats(file, "tuning");
  b.group = file.count("/", "group").value_or(1);
  b.tuning_steps = file.count("/", "tuning_steps").value_or(0);
  if (const auto found = fault(b)) fail(ErrorCode::corrupt, "{}: {}", where, *found);
  check_distance(where, *distance, b);
  if (!b.truth_scores.empty()) {
    b.truth_scores = negated(b.truth_scores, distance_of_zero(where, b));
  }
  return b;
}

void write_benchmark(const std::filesystem::path& path, const Benchmark& b) {
  const auto found = fault(b);
  require(!found, "benchmark: {}", found.value_or(""));
  hdf5::Writer file(path);
  file.set("/", "distance", std::string("ip"));
  file.set("/", "dimension", b.keys.cols());
  file.set("/", "point_type", std::string("float"));
  file.set("/", "group", b.group);
  file.set("/", "tuning_steps", b.tuning_steps);
  write_keys(file, b.keys.view());
  write_floats(file, "test", b.queries);
  write_floats(file, "learn", b.learn);
  write_id_lists(file, "learn_neighbors", b.learn_ids, b.keys.rows());
  write_id_lists(file, "neighbors", b.truth_ids, b.keys.rows());
  write_floats(file, "distances", negated(b.truth_scores, 0));
  write_floats(file, "tuning", b.tuning);
  file.commit();
}

}  // namespace keyseek::io
