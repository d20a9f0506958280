#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "file/temporary_directory.hpp"
#include "io/hdf5_writer.hpp"
#include "keyseek/io.hpp"

namespace keyseek::io {
namespace {

using test::expect_error;
using test::TemporaryDirectory;

Matrix<float> waves(std::size_t rows, std::size_t cols, float seed) {
  Matrix<float> m(rows, cols);
  for (std::size_t i = 0; i < rows * cols; ++i) {
    m.data()[i] = std::sin(seed + 1.7F * static_cast<float>(i)) * 4;
  }
  return m;
}

void normalize(Matrix<float>& m) {
  for (std::size_t i = 0; i < m.rows(); ++i) {
    float sum = 0;
    for (std::size_t j = 0; j < m.cols(); ++j) sum += m.row(i)[j] * m.row(i)[j];
    for (std::size_t j = 0; j < m.cols(); ++j) m.row(i)[j] /= std::sqrt(sum);
  }
}

float dot(const float* a, const float* b, std::size_t d) {
  float sum = 0;
  for (std::size_t j = 0; j < d; ++j) sum += a[j] * b[j];
  return sum;
}

/// The k best keys of every query.
void add_truth(Benchmark& b, const Matrix<float>& keys, std::size_t k) {
  b.truth_ids = Matrix<Id>(b.queries.rows(), k);
  b.truth_scores = Matrix<float>(b.queries.rows(), k);
  for (std::size_t i = 0; i < b.queries.rows(); ++i) {
    std::vector<std::pair<float, Id>> found;
    for (Id id = 0; id < keys.rows(); ++id) {
      found.emplace_back(-dot(b.queries.row(i), keys.row(id), keys.cols()), id);
    }
    std::sort(found.begin(), found.end());
    for (std::size_t j = 0; j < k; ++j) {
      b.truth_ids.row(i)[j] = found[j].second;
      b.truth_scores.row(i)[j] = -found[j].first;
    }
  }
}

/// 20 keys, 6 queries in 3 steps, everything present.
Benchmark full(bool unit = false) {
  auto keys = waves(20, 8, 1);
  Benchmark b;
  b.queries = waves(6, 8, 2);
  if (unit) normalize(keys);
  if (unit) normalize(b.queries);
  b.keys = AnyMatrix::copy_of(AnyMatrixView::of(keys.view()));
  b.learn = waves(4, 8, 3);
  b.learn_ids = Matrix<Id>(4, 2);
  b.learn_ids.row(3)[1] = kNoId;
  b.tuning = waves(12, 8, 4);
  b.group = 2;
  b.tuning_steps = 3;
  add_truth(b, keys, 5);
  return b;
}

template <class T>
void expect_same(const Matrix<T>& a, const Matrix<T>& b) {
  ASSERT_EQ(a.rows(), b.rows());
  ASSERT_EQ(a.cols(), b.cols());
  EXPECT_TRUE(std::equal(a.data(), a.data() + a.rows() * a.cols(), b.data()));
}

TEST(Benchmark, RoundTrip) {
  const TemporaryDirectory directory;
  const auto b = full();
  write_benchmark(directory / "a.h5", b);
  const auto found = read_benchmark(directory / "a.h5");
  expect_same(to_f32(found.keys.view()), to_f32(b.keys.view()));
  expect_same(found.queries, b.queries);
  expect_same(found.learn, b.learn);
  expect_same(found.learn_ids, b.learn_ids);
  expect_same(found.truth_ids, b.truth_ids);
  expect_same(found.truth_scores, b.truth_scores);
  expect_same(found.tuning, b.tuning);
  EXPECT_EQ(found.group, 2U);
  EXPECT_EQ(found.tuning_steps, 3U);
}

TEST(Benchmark, OnlyKeysAndQueriesAreNeeded) {
  const TemporaryDirectory directory;
  Benchmark b;
  b.keys = full().keys;
  b.queries = waves(1, 8, 2);
  write_benchmark(directory / "a.h5", b);
  const auto found = read_benchmark(directory / "a.h5");
  EXPECT_TRUE(found.learn.empty() && found.truth_ids.empty() && found.truth_scores.empty());
  EXPECT_EQ(found.group, 1U);
}

TEST(Benchmark, KeysKeepTheirType) {
  const TemporaryDirectory directory;
  Matrix<Half> half(3, 2);
  half.row(2)[1] = to_half(0.5F);
  Matrix<std::int8_t> bytes(3, 2);
  bytes.row(2)[1] = -128;
  Matrix<BFloat16> brain(3, 2);
  brain.row(2)[1] = to_bfloat16(1.5F);
  const auto kept = [&](AnyMatrixView keys) {
    Benchmark b;
    b.keys = AnyMatrix::copy_of(keys);
    b.queries = waves(1, 2, 1);
    write_benchmark(directory / "a.h5", b);
    const auto found = read_benchmark(directory / "a.h5").keys;
    expect_same(to_f32(found.view()), to_f32(keys));
    return found.dtype();
  };
  EXPECT_EQ(kept(AnyMatrixView::of(half.view())), Dtype::f16);
  EXPECT_EQ(kept(AnyMatrixView::of(bytes.view())), Dtype::i8);
  EXPECT_EQ(kept(AnyMatrixView::of(brain.view())), Dtype::f32);
}

/// A file in the layout of VIBE and ann-benchmarks, written part by part.
struct Parts {
  Benchmark b = full();
  std::string distance = "ip";
  std::function<float(float)> stored = [](float score) { return -score; };
  std::size_t group = 2;

  void write(const std::filesystem::path& path) const {
    hdf5::Writer file(path);
    if (!distance.empty()) file.set("/", "distance", distance);
    file.set("/", "group", group);
    const auto floats = [&](const char* name, const Matrix<float>& m) {
      if (!m.empty()) file.write(name, {m.rows(), m.cols()}, hdf5::Element::f32, m.data());
    };
    const auto ids = [&](const char* name, const Matrix<Id>& m) {
      if (!m.empty()) file.write(name, {m.rows(), m.cols()}, hdf5::Element::i32, m.data());
    };
    floats("train", to_f32(b.keys.view()));
    floats("test", b.queries);
    floats("learn", b.learn);
    ids("learn_neighbors", b.learn_ids);
    ids("neighbors", b.truth_ids);
    auto distances = b.truth_scores;
    std::transform(distances.data(), distances.data() + distances.rows() * distances.cols(),
                   distances.data(), stored);
    floats("distances", distances);
    file.commit();
  }
};

TEST(Benchmark, StoredDistancesBecomeInnerProducts) {
  const TemporaryDirectory directory;
  const auto path = directory / "a.hdf5";
  const auto reads = [&](const Parts& parts) {
    SCOPED_TRACE(parts.distance);
    parts.write(path);
    const auto found = read_benchmark(path).truth_scores;
    const auto& wanted = parts.b.truth_scores;
    for (std::size_t i = 0; i < wanted.rows() * wanted.cols(); ++i) {
      EXPECT_NEAR(found.data()[i], wanted.data()[i], 1e-5);
    }
  };
  Parts parts;
  reads(parts);
  parts.stored = [](float score) { return 1 - score; };
  reads(parts);
  parts.b = full(true);
  reads(parts);
  for (const std::string distance : {"angular", "cosine", "normalized"}) {
    parts.distance = distance;
    reads(parts);
  }
}

TEST(Benchmark, ContradictionsAreRefused) {
  const TemporaryDirectory directory;
  const auto path = directory / "a.hdf5";
  const auto refuses = [&](ErrorCode code, const std::string& part, auto change) {
    SCOPED_TRACE(part);
    Parts parts;
    change(parts);
    parts.write(path);
    expect_error(code, {path.string(), part}, [&] { (void)read_benchmark(path); });
  };
  const auto corrupt = ErrorCode::corrupt;
  refuses(corrupt, "attribute distance is missing", [](Parts& p) { p.distance = ""; });
  refuses(ErrorCode::unsupported, "'euclidean'", [](Parts& p) { p.distance = "euclidean"; });
  refuses(ErrorCode::unsupported, "row 0 of train has length",
          [](Parts& p) { p.distance = "angular"; });
  refuses(corrupt, "dataset train is missing", [](Parts& p) { p.b.keys = {}; });
  refuses(corrupt, "dataset test is missing", [](Parts& p) { p.b.queries = {}; });
  refuses(corrupt, "test has dimension 7", [](Parts& p) { p.b.queries = waves(6, 7, 1); });
  refuses(corrupt, "learn has dimension 9", [](Parts& p) { p.b.learn = waves(4, 9, 1); });
  refuses(corrupt, "no multiple of group 4", [](Parts& p) { p.group = 4; });
  refuses(corrupt, "no multiple of group 0", [](Parts& p) { p.group = 0; });
  refuses(corrupt, "neighbors has 7 rows", [](Parts& p) {
    p.b.truth_ids = Matrix<Id>(7, 5);
    p.b.truth_scores = waves(7, 5, 1);
  });
  refuses(corrupt, "k = 21", [](Parts& p) {
    p.b.truth_ids = Matrix<Id>(6, 21);
    p.b.truth_scores = waves(6, 21, 1);
  });
  refuses(corrupt, "distances are 6 x 4, but neighbors 6 x 5",
          [](Parts& p) { p.b.truth_scores = waves(6, 4, 1); });
  refuses(corrupt, "distances are 6 x 5, but neighbors 0 x 0",
          [](Parts& p) { p.b.truth_ids = {}; });
  refuses(corrupt, "neighbors: row 3 names key 20", [](Parts& p) { p.b.truth_ids.row(3)[2] = 20; });
  refuses(corrupt, "learn_neighbors: row 1 names key 99",
          [](Parts& p) { p.b.learn_ids.row(1)[0] = 99; });
  refuses(corrupt, "learn_neighbors has 4 rows, but learn has 0", [](Parts& p) { p.b.learn = {}; });
  refuses(corrupt, "neither", [](Parts& p) { p.stored = [](float score) { return score; }; });
  refuses(ErrorCode::not_finite, "distances row 0 holds NaN",
          [](Parts& p) { p.stored = [](float) { return std::nanf(""); }; });
}

TEST(Benchmark, WhatCannotBeWrittenLeavesNoFile) {
  const TemporaryDirectory directory;
  const auto refuses = [&](const std::string& part, auto change) {
    auto b = full();
    change(b);
    expect_error(ErrorCode::invalid_argument, {"benchmark", part},
                 [&] { write_benchmark(directory / "a.h5", b); });
  };
  refuses("train is 0 x 0", [](Benchmark& b) { b.keys = {}; });
  refuses("test has no rows", [](Benchmark& b) { b.queries = {}; });
  refuses("group 4", [](Benchmark& b) { b.group = 4; });
  refuses("tuning_steps 5", [](Benchmark& b) { b.tuning_steps = 5; });
  refuses("names key 20", [](Benchmark& b) { b.truth_ids.row(0)[0] = 20; });
  EXPECT_TRUE(directory.names().empty());
}

}  // namespace
}  // namespace keyseek::io
