/// Writes the sections of an index, and reads them with every check.
#include "index/index_file.hpp"

#include <cmath>
#include <cstdint>
#include <string>

#include "base/fail.hpp"
#include "base/saved_count.hpp"

namespace keyseek {
namespace {

constexpr std::size_t kParams = 10;  // numbers of ProjectionParams

AnyMatrix read_matrix(const ContainerReader& reader, std::string_view name,
                      std::string_view shape_name) {
  Numbers shape(reader, shape_name);
  const std::size_t rows = shape.whole(), cols = shape.whole(), dtype = shape.whole();
  shape.check(rows > 0 && cols > 0 && rows < kNoId && cols < (1U << 24U),
              "holds an impossible shape");
  shape.check(dtype <= static_cast<std::size_t>(Dtype::i8), "names an unknown element type");
  shape.finish();
  const auto bytes = reader.array<std::byte>(name);
  shape.check(bytes.size() == rows * cols * size_of(static_cast<Dtype>(dtype)),
              "does not match its matrix");
  AnyMatrix matrix(bytes, static_cast<Dtype>(dtype), rows, cols);
  try {
    require_finite(matrix.view(), name);
  } catch (const Error& e) {
    fail(ErrorCode::corrupt, "{}: {}", reader.path().string(), e.what());
  }
  return matrix;
}

}  // namespace

Numbers::Numbers(const ContainerReader& reader, std::string_view name)
    : path_(reader.path()), name_(name), numbers_(reader.array<double>(name)) {}

double Numbers::real_or_infinite() {
  check(next_ < numbers_.size(), "ends too early");
  const double x = numbers_[next_++];
  check(!std::isnan(x), "holds a number that is not finite");
  return x;
}

double Numbers::real() {
  const double x = real_or_infinite();
  check(std::isfinite(x), "holds a number that is not finite");
  return x;
}

double Numbers::real_in(double least, double most) {
  const double x = real();
  check(x >= least && x <= most, "holds a number that is out of range");
  return x;
}

std::size_t Numbers::whole() {
  const double x = real_or_infinite();
  if (x == saved_count(SIZE_MAX)) return SIZE_MAX;
  check(x >= 0 && x <= saved_count(kMostSaved) && x == std::floor(x),
        "holds a number that is not a count");
  return static_cast<std::size_t>(x);
}

std::size_t Numbers::whole_up_to(std::size_t largest) {
  const std::size_t x = whole();
  check(x <= largest, "holds a number that is too large");
  return x;
}

void Numbers::check(bool ok, const char* what) const {
  if (!ok) fail(ErrorCode::corrupt, "{}: section {} {}", path_.string(), name_, what);
}

template <class T>
void IndexFileWriter::add_array(std::string_view name, const SharedArray<T>& array) {
  writer_.add(std::string(name), std::as_bytes(array.span()));
}

void IndexFileWriter::add_matrix(std::string_view name, std::string_view shape_name,
                                 const AnyMatrix& matrix) {
  add_numbers(std::string(shape_name),
              {static_cast<double>(matrix.rows()), static_cast<double>(matrix.cols()),
               static_cast<double>(static_cast<int>(matrix.dtype()))});
  add_rows(std::string(name), matrix.view());
}

void IndexFileWriter::add_rows(std::string name, AnyMatrixView rows) {
  if (!rows.is_dense()) {
    copies_.push_back(AnyMatrix::copy_of(rows));
    rows = copies_.back().view();
  }
  writer_.add(std::move(name),
              {static_cast<const std::byte*>(rows.data), rows.rows * rows.row_bytes()});
}

void IndexFileWriter::add_numbers(std::string name, std::vector<double> numbers) {
  numbers_.push_back(std::move(numbers));
  writer_.add(std::move(name), std::as_bytes(std::span<const double>(numbers_.back())));
}

void IndexFileWriter::add(const KeyStore& store) {
  const KeyStore::Parts parts = store.parts();
  add_matrix("keys", "keys.shape", parts.keys);
  add_numbers("codes.layout", {static_cast<double>(static_cast<int>(parts.layout))});
  if (parts.layout == CodeLayout::none) {
    add_numbers("keys.longest", {parts.longest});
    return;
  }
  add_array("codes", parts.codes);
  add_array("codes.scales", parts.scales);
  add_array("codes.mean", parts.mean);
  add_array("codes.channel", parts.channel);
}

void IndexFileWriter::add(const Sketch& sketch) {
  const Sketch::Parts& parts = sketch.parts();
  add_matrix("sketch.queries", "sketch.queries.shape", parts.query_map);
  add_matrix("sketch.keys", "sketch.keys.shape", parts.key_map);
  add_numbers("sketch.factor", {double{parts.factor}});
  add_numbers("sketch.depth", {parts.depth.of_ten, parts.depth.of_hundred});
  add_array("sketch.mean", parts.mean);
  add_array("sketch.codes", parts.codes);
  add_array("sketch.scales", parts.scales);
}

void IndexFileWriter::add(const Graph& graph) {
  const Graph::Parts parts = graph.parts();
  add_array("graph.offsets", parts.offsets);
  add_array("graph.targets", parts.targets);
  add_array("graph.entry_points", parts.entry_points);
}

void IndexFileWriter::add(const Router& router) {
  const Router::Parts& parts = router.parts();
  add_matrix("router.query_map", "router.shape", parts.query_map);
  add_array("router.centroids", parts.centroids);
  add_array("router.centroid_scales", parts.centroid_scales);
  add_array("router.clusters", parts.cluster_offsets);
  add_array("router.codes", parts.codes);
  add_array("router.scales", parts.scales);
  add_array("router.lists", parts.list_offsets);
  add_array("router.gaps", parts.gaps);
}

void IndexFileWriter::add(const std::vector<OperatingPoint>& points) {
  std::vector<double> numbers;
  for (const OperatingPoint& p : points) {
    numbers.insert(numbers.end(),
                   {p.target_recall, p.recall, p.scanned_fraction, p.flat_is_better ? 1.0 : 0.0,
                    static_cast<double>(p.dials.probes), static_cast<double>(p.dials.lists),
                    static_cast<double>(p.dials.expand), static_cast<double>(p.dials.pool),
                    double{p.dials.novel}});
  }
  add_numbers("points", std::move(numbers));
}

void IndexFileWriter::add(const ProjectionParams& p) {
  const GraphParams& g = p.graph;
  add_numbers(
      "params",
      {saved_count(p.list_length), saved_count(p.tuning_k),
       static_cast<double>(static_cast<int>(g.link_method)), saved_count(g.candidates),
       saved_count(g.degree), saved_count(g.max_degree), g.damping, saved_count(g.sampled_lists),
       saved_count(g.entry_points), static_cast<double>(static_cast<int>(p.list_method))});
}

KeyStore read_store(const ContainerReader& reader) {
  KeyStore::Parts parts;
  parts.keys = read_matrix(reader, "keys", "keys.shape");
  Numbers layout(reader, "codes.layout");
  const std::size_t value = layout.whole();
  layout.check(value <= static_cast<std::size_t>(CodeLayout::none), "names an unknown layout");
  layout.finish();
  parts.layout = static_cast<CodeLayout>(value);
  if (parts.layout == CodeLayout::none) {
    Numbers longest(reader, "keys.longest");
    parts.longest = longest.real();
    longest.finish();
    return KeyStore::from_parts(std::move(parts));
  }
  parts.codes = reader.array<std::uint8_t>("codes");
  parts.scales = reader.array<float>("codes.scales");
  parts.mean = reader.array<float>("codes.mean");
  parts.channel = reader.array<float>("codes.channel");
  return KeyStore::from_parts(std::move(parts));
}

Sketch read_sketch(const ContainerReader& reader, const KeyStore& store) {
  Sketch::Parts parts;
  parts.query_map = read_matrix(reader, "sketch.queries", "sketch.queries.shape");
  parts.key_map = read_matrix(reader, "sketch.keys", "sketch.keys.shape");
  Numbers factor(reader, "sketch.factor");
  parts.factor = static_cast<float>(factor.real());
  factor.finish();
  Numbers depth(reader, "sketch.depth");
  parts.depth = {depth.real(), depth.real()};
  depth.finish();
  parts.mean = reader.array<float>("sketch.mean");
  parts.codes = reader.array<std::uint8_t>("sketch.codes");
  parts.scales = reader.array<float>("sketch.scales");
  if (parts.query_map.cols() != store.dim()) {
    fail(ErrorCode::corrupt, "{}: the sketch is for dimension {}, the keys have {}",
         reader.path().string(), parts.query_map.cols(), store.dim());
  }
  return Sketch::from_parts(std::move(parts), store.size());
}

Graph read_graph(const ContainerReader& reader, std::size_t n) {
  Graph graph = Graph::from_parts({reader.array<std::uint32_t>("graph.offsets"),
                                   reader.array<Id>("graph.targets"),
                                   reader.array<Id>("graph.entry_points")});
  if (graph.size() != n) {
    fail(ErrorCode::corrupt, "{}: the graph links {} keys, the file holds {}",
         reader.path().string(), graph.size(), n);
  }
  return graph;
}

Router read_router(const ContainerReader& reader, const KeyStore& store) {
  Router::Parts parts;
  parts.query_map = read_matrix(reader, "router.query_map", "router.shape");
  if (parts.query_map.cols() != store.dim()) {
    fail(ErrorCode::corrupt, "{}: the router is for dimension {}, the keys have {}",
         reader.path().string(), parts.query_map.cols(), store.dim());
  }
  parts.centroids = reader.array<std::uint8_t>("router.centroids");
  parts.centroid_scales = reader.array<float>("router.centroid_scales");
  parts.cluster_offsets = reader.array<std::uint32_t>("router.clusters");
  parts.codes = reader.array<std::uint8_t>("router.codes");
  parts.scales = reader.array<float>("router.scales");
  parts.list_offsets = reader.array<std::uint32_t>("router.lists");
  parts.gaps = reader.array<std::uint16_t>("router.gaps");
  return Router::from_parts(std::move(parts), store.size());
}

std::vector<OperatingPoint> read_points(const ContainerReader& reader) {
  std::vector<OperatingPoint> points;
  Numbers numbers(reader, "points");
  while (!numbers.done()) {
    OperatingPoint p;
    p.target_recall = numbers.real_in(0, 1);
    p.recall = numbers.real_in(0, 1);
    p.scanned_fraction = numbers.real_in(0, 1);
    p.flat_is_better = numbers.whole_up_to(1) != 0;
    const auto dial = [&] { return static_cast<std::uint32_t>(numbers.whole_up_to(0xffffffffU)); };
    p.dials = {dial(), dial(), dial(), dial()};
    p.dials.novel = static_cast<float>(numbers.real());
    numbers.check(p.dials.expand > 0 || (p.dials.lists > 0 && p.dials.probes > 0),
                  "holds dials that find nothing");
    numbers.check(points.empty() || p.target_recall > points.back().target_recall,
                  "is not in the order of its targets");
    points.push_back(p);
  }
  return points;
}

ProjectionParams read_params(const ContainerReader& reader) {
  Numbers numbers(reader, "params");
  numbers.check(numbers.count() == kParams,
                "does not have 10 numbers, as of another version of keyseek: build it again");
  ProjectionParams p;
  p.list_length = numbers.whole();
  p.tuning_k = numbers.whole();
  const std::size_t link_method = numbers.whole();
  numbers.check(link_method <= static_cast<std::size_t>(LinkMethod::pivot),
                "names an unknown link method");
  p.graph.link_method = static_cast<LinkMethod>(link_method);
  p.graph.candidates = numbers.whole();
  p.graph.degree = numbers.whole();
  p.graph.max_degree = numbers.whole();
  p.graph.damping = numbers.real();
  p.graph.sampled_lists = numbers.whole();
  p.graph.entry_points = numbers.whole();
  const std::size_t list_method = numbers.whole();
  numbers.check(list_method <= static_cast<std::size_t>(KnnMethod::int8),
                "names an unknown list method");
  p.list_method = static_cast<KnnMethod>(list_method);
  try {
    p.validate();
  } catch (const Error& e) {
    fail(ErrorCode::corrupt, "{}: section params: {}", reader.path().string(), e.what());
  }
  return p;
}

}  // namespace keyseek
