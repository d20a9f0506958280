// Indexes on disk. (What a container checks has tests of its own.)
#include "index/index_file.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "file/temporary_directory.hpp"
#include "support/indexes.hpp"
#include "support/ood_data.hpp"
#include "support/search_run.hpp"

namespace keyseek {
namespace {

using test::any;
using test::Bytes;
using test::expect_error;
using test::expect_same;
using test::TemporaryDirectory;

struct Files {
  TemporaryDirectory directory;
  test::OodData data = test::make_ood_data({.n = 700, .d = 20, .train_steps = 120});
  AnyMatrix keys = test::stored_as(data.keys, Dtype::f16);
  Index index =
      test::projection_index(keys.view(), data.training, {.list_length = 40, .tuning_k = 40});
  Index flat = test::flat_index(keys.view());
  Index sketch = test::sketch_index(keys.view(), data.training.train);
  std::filesystem::path projection_path = directory / "projection.ks",
                        flat_path = directory / "flat.ks", sketch_path = directory / "sketch.ks";

  Files() {
    index.save(projection_path);
    flat.save(flat_path);
    sketch.save(sketch_path);
  }
};

template <class Index>
void expect_same_searches(const Index& a, const Index& b, const test::OodData& data) {
  EXPECT_EQ(a.size(), b.size());
  EXPECT_EQ(a.dim(), b.dim());
  EXPECT_EQ(a.bytes(), b.bytes());
  const auto left = test::walk(a, data.test, 2, {.k = 25}, true);
  const auto right = test::walk(b, data.test, 2, {.k = 25}, true);
  for (std::size_t s = 0; s < left.size(); ++s) expect_same(left[s], right[s]);
}

TEST(IndexFile, LoadedAndMappedIndexesAreTheSame) {
  const Files f;
  const auto check = [&](const auto& index, const auto& other, const std::filesystem::path& path) {
    expect_same_searches(index, other, f.data);
    const auto again = f.directory / "again.ks";
    other.save(again);
    EXPECT_EQ(test::read_bytes(again), test::read_bytes(path));
  };
  check(f.index, Index::open(f.projection_path), f.projection_path);
  check(f.index, Index::open(f.projection_path, FileMemory::mapped), f.projection_path);
  check(f.flat, Index::open(f.flat_path), f.flat_path);
  check(f.flat, Index::open(f.flat_path, FileMemory::mapped), f.flat_path);
  check(f.sketch, Index::open(f.sketch_path), f.sketch_path);
  check(f.sketch, Index::open(f.sketch_path, FileMemory::mapped), f.sketch_path);
}

TEST(IndexFile, DialsAndReachabilityComeBack) {
  const Files f;
  const auto loaded = Index::open(f.projection_path);
  const auto expected = f.index.operating_points(), found = loaded.operating_points();
  ASSERT_EQ(found.size(), 5U);
  for (std::size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(found[i].target_recall, expected[i].target_recall);
    EXPECT_EQ(found[i].recall, expected[i].recall);
    EXPECT_EQ(found[i].scanned_fraction, expected[i].scanned_fraction);
    EXPECT_EQ(found[i].dials, expected[i].dials);
    EXPECT_EQ(found[i].flat_is_better, expected[i].flat_is_better);
  }
  EXPECT_EQ(test::fact(loaded, "unreachable"), 0U);
  EXPECT_EQ(loaded.extra_bytes(), f.index.extra_bytes());
}

TEST(IndexFile, AllParametersAnAppendNeedsComeBack) {
  const TemporaryDirectory directory;
  const auto path = directory / "params.ks";
  const ProjectionParams params = {.list_length = 33,
                                   .list_method = KnnMethod::f32,
                                   .graph = {.link_method = LinkMethod::pivot,
                                             .candidates = 41,
                                             .degree = 17,
                                             .max_degree = 23,
                                             .damping = 0.125,
                                             .sampled_lists = 77,
                                             .entry_points = 5},
                                   .tuning_k = 12};
  IndexFileWriter writer("projection");
  writer.add(params);
  writer.save(path);
  const ProjectionParams found = read_params(ContainerReader::load(path));
  EXPECT_EQ(found.list_length, 33U);
  EXPECT_EQ(found.list_method, KnnMethod::f32);
  EXPECT_EQ(found.tuning_k, 12U);
  EXPECT_EQ(found.graph.link_method, LinkMethod::pivot);
  EXPECT_EQ(found.graph.candidates, 41U);
  EXPECT_EQ(found.graph.degree, 17U);
  EXPECT_EQ(found.graph.max_degree, 23U);
  EXPECT_EQ(found.graph.damping, 0.125);
  EXPECT_EQ(found.graph.sampled_lists, 77U);
  EXPECT_EQ(found.graph.entry_points, 5U);
}

TEST(IndexFile, NumbersThatMakeNoSenseAreCorrupt) {
  const TemporaryDirectory directory;
  const auto path = directory / "bad.ks";
  const auto refused = [&](const std::string& section, std::vector<double> numbers,
                           const std::string& fault) {
    ContainerWriter writer("projection");
    writer.add(section, std::as_bytes(std::span<const double>(numbers)));
    writer.save(path);
    const auto reader = ContainerReader::load(path);
    expect_error(ErrorCode::corrupt, {path.string(), section, fault}, [&] {
      if (section == "params") (void)read_params(reader);
      if (section == "points") (void)read_points(reader);
      if (section == "keys.shape") (void)read_store(reader);
    });
  };
  const std::vector<double> params = {100, 100, 0, 64, 32, 48, 0.35, 400, 64, 1};
  const auto with = [&](std::size_t i, double x) {
    auto changed = params;
    changed[i] = x;
    return changed;
  };
  refused("params", {params.begin(), params.end() - 1}, "another version");
  refused("params", with(0, 0), "list_length is 0");
  refused("params", with(0, -1), "not a count");
  refused("params", with(1, 2.5), "not a count");
  refused("params", with(1, NAN), "not finite");
  refused("params", with(2, 2), "unknown link method");
  refused("params", with(4, 1e15), "degree");
  refused("params", with(6, 7), "damping is 7");
  refused("params", with(9, 2), "unknown list method");
  auto longer = params;
  longer.push_back(0);
  refused("params", longer, "another version");
  refused("points", {0.9, 0.9, 0.1, 0, 4, 4, 4, 0}, "too early");
  refused("points", {0.9, INFINITY, 0.1, 0, 4, 4, 4, 0, -1}, "not finite");
  refused("points", {0.9, 0.9, 0.1, 0, 4, 0, 0, 0, -1}, "find nothing");
  refused("points", {0.9, 0.9, 0.1, 0, 0, 4, 0, 0, -1}, "find nothing");
  refused("points", {0.9, 0.9, 0.1, 0, 5e9, 4, 0, 0, -1}, "too large");
  refused("points", {0.9, 0.9, 0.1, 2, 4, 4, 4, 0, -1}, "too large");
  for (std::size_t i = 0; i < 3; ++i) {
    std::vector<double> point = {0.9, 0.9, 0.1, 0, 4, 4, 4, 0, -1};
    point[i] = 5;
    refused("points", point, "out of range");
  }
  refused("points", {0.9, 0.9, 0.1, 0, 4, 4, 4, 0, -1, 0.8, 0.8, 0.1, 0, 4, 4, 4, 0, -1}, "order");
  refused("keys.shape", {0, 4, 0}, "impossible shape");
  refused("keys.shape", {4, 1e9, 0}, "impossible shape");
  refused("keys.shape", {4294967295.0, 4, 0}, "impossible shape");
  refused("keys.shape", {4, 4, 4}, "unknown element type");
}

void open_every_way(const std::filesystem::path& path, ErrorCode code,
                    const std::vector<std::string>& parts) {
  expect_error(code, parts, [&] { (void)Index::open(path); });
  expect_error(code, parts, [&] { (void)Index::open(path, FileMemory::mapped); });
}

TEST(IndexFile, DamagedFilesAreRefused) {
  const Files f;
  const auto damaged = f.directory / "damaged.ks";
  for (const auto& path : {f.projection_path, f.flat_path, f.sketch_path}) {
    const Bytes bytes = test::read_bytes(path);
    const auto refused = [&](const Bytes& content) {
      test::write_bytes(damaged, content);
      open_every_way(damaged, ErrorCode::corrupt, {damaged.string()});
    };
    for (const std::size_t eighth : {0U, 1U, 2U, 3U, 4U, 5U, 6U, 7U}) {
      const std::size_t at = eighth * (bytes.size() - 1) / 7;
      Bytes flipped = bytes;
      flipped[at] = static_cast<char>(flipped[at] ^ 0x10);
      refused(flipped);
      refused({bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(at)});
    }
    Bytes longer = bytes;
    longer.push_back('x');
    refused(longer);
  }
}

TEST(IndexFile, KindsAreToldApart) {
  const Files f;
  EXPECT_EQ(index_kind(f.projection_path), IndexKind::projection);
  EXPECT_EQ(index_kind(f.flat_path), IndexKind::flat);
  EXPECT_EQ(index_kind(f.sketch_path), IndexKind::sketch);
  EXPECT_EQ(Index::open(f.sketch_path).kind(), IndexKind::sketch);
  const auto other = f.directory / "other.ks";
  ContainerWriter("tail").save(other);
  expect_error(ErrorCode::unsupported, {other.string(), "tail"}, [&] { (void)index_kind(other); });
  test::write_bytes(other, Bytes(1000, 'x'));
  expect_error(ErrorCode::corrupt, {other.string()}, [&] { (void)index_kind(other); });
}

TEST(IndexFile, PartsOfDifferentIndexesDoNotMix) {
  const Files f;
  const test::OodData small = test::make_ood_data({.n = 300, .d = 20, .train_steps = 60});
  const test::OodData narrow = test::make_ood_data({.n = 700, .d = 12, .train_steps = 60});
  const auto parts = [](const test::OodData& data, CodeLayout layout) {
    const auto lists = exact_knn(any(data.keys), data.training.train, {.k = 20}).ids;
    const KeyStore store = KeyStore::encode(any(data.keys), data.training.train, layout);
    const KeyStore rows = KeyStore::encode(any(data.keys), data.training.train);
    return std::tuple(store, build_graph(lists, rows).graph,
                      Router::build(data.training.train, lists, any(data.keys)));
  };
  const auto [store, graph, router] = parts(f.data, CodeLayout::rows);
  const auto [small_store, small_graph, small_router] = parts(small, CodeLayout::rows);
  const auto [block_store, g2, r2] = parts(f.data, CodeLayout::blocks);
  const auto [narrow_store, narrow_graph, narrow_router] = parts(narrow, CodeLayout::rows);
  const auto path = f.directory / "mixed.ks";
  const auto save = [&](const std::string& kind, const KeyStore& s, const Graph& g,
                        const Router& r) {
    IndexFileWriter writer(kind);
    const ProjectionParams params;
    writer.add(s);
    writer.add(g);
    writer.add(r);
    writer.add(std::vector<OperatingPoint>());
    writer.add(params);
    writer.save(path);
  };
  save("projection", store, graph, router);
  EXPECT_EQ(Index::open(path).size(), 700U);
  save("projection", store, small_graph, router);
  open_every_way(path, ErrorCode::corrupt, {"links 300 keys", "700"});
  save("projection", store, graph, narrow_router);
  open_every_way(path, ErrorCode::corrupt, {"dimension 12", "20"});
  save("projection", small_store, small_graph, router);
  open_every_way(path, ErrorCode::corrupt, {"router", "out of range"});
  save("projection", block_store, graph, router);
  open_every_way(path, ErrorCode::corrupt, {"codes is blocks", "projection index is rows"});
  save("flat", store, graph, router);
  open_every_way(path, ErrorCode::corrupt, {"codes is rows", "flat index is blocks"});
}

TEST(IndexFile, ASketchOfOtherKeysDoesNotMix) {
  const Files f;
  const auto path = f.directory / "mixed.ks";
  const auto refused = [&](const Matrix<float>& sketched, CodeLayout layout,
                           const std::vector<std::string>& parts) {
    const auto queries = test::normal_matrix(30, sketched.cols(), 1);
    const Sketch sketch = Sketch::build(any(sketched), queries);
    const KeyStore store = KeyStore::encode(any(f.data.keys), f.data.training.train, layout);
    IndexFileWriter writer("sketch");
    writer.add(store);
    writer.add(sketch);
    writer.save(path);
    open_every_way(path, ErrorCode::corrupt, parts);
  };
  refused(test::normal_matrix(700, 12, 2), CodeLayout::none, {"dimension 12", "20"});
  refused(test::normal_matrix(650, 20, 2), CodeLayout::none, {"codes do not match"});
  refused(test::normal_matrix(699, 20, 2), CodeLayout::none, {"a scale is wrong"});
  refused(f.data.keys, CodeLayout::blocks, {"codes is blocks", "sketch index is none"});
}

TEST(IndexFile, FilesThatAreNotThereAreAnIoError) {
  const Files f;
  const auto nowhere = f.directory / "missing" / "index.ks";
  expect_error(ErrorCode::io, {nowhere.string()}, [&] { f.index.save(nowhere); });
  expect_error(ErrorCode::io, {nowhere.string()}, [&] { f.flat.save(nowhere); });
  open_every_way(nowhere, ErrorCode::io, {nowhere.string()});
  expect_error(ErrorCode::io, {nowhere.string()}, [&] { (void)index_kind(nowhere); });
  EXPECT_EQ(f.directory.names().size(), 3U);
}

TEST(IndexFile, AMappedIndexOutlivesItsReplacement) {
  Files f;
  const auto mapped = Index::open(f.projection_path, FileMemory::mapped);
  const Hits before = test::search(mapped, f.data.step(0), {.k = 25});
  f.index.append(test::stored_as(test::normal_matrix(50, 20, 1), Dtype::f16).view(), {});
  f.index.save(f.projection_path);
  expect_same(test::search(mapped, f.data.step(0), {.k = 25}), before);
  EXPECT_EQ(mapped.size(), 700U);
  EXPECT_EQ(Index::open(f.projection_path, FileMemory::mapped).size(), 750U);
}

}  // namespace
}  // namespace keyseek
