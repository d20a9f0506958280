/// Measures the arrays of an index, and moves them one behind the other.
#include "index/pack.hpp"

#include <cstring>
#include <memory>
#include <utility>

namespace keyseek {
namespace {

constexpr std::size_t kLine = 64;

std::size_t whole_lines(std::size_t bytes) { return (bytes + kLine - 1) / kLine * kLine; }

/// Applies `visit` to every array of the parts.
template <class Visit>
void each_array(KeyStore::Parts& parts, const Visit& visit) {
  visit(parts.codes);
  visit(parts.scales);
  visit(parts.mean);
  visit(parts.channel);
}

template <class Visit>
void each_array(Sketch::Parts& parts, const Visit& visit) {
  visit(parts.query_map);
  visit(parts.key_map);
  visit(parts.mean);
  visit(parts.codes);
  visit(parts.scales);
}

template <class Visit>
void each_array(Graph::Parts& parts, const Visit& visit) {
  visit(parts.offsets);
  visit(parts.targets);
  visit(parts.entry_points);
}

template <class Visit>
void each_array(Router::Parts& parts, const Visit& visit) {
  visit(parts.query_map);
  visit(parts.centroids);
  visit(parts.centroid_scales);
  visit(parts.cluster_offsets);
  visit(parts.codes);
  visit(parts.scales);
  visit(parts.list_offsets);
  visit(parts.gaps);
}

/// Moves arrays one behind the other into memory that was measured for them.
class Packer {
 public:
  template <class... Parts>
  explicit Packer(Parts&... parts) {
    std::size_t total = 0;
    const auto measure = [&](const auto& array) { total += whole_lines(array.bytes()); };
    (each_array(parts, measure), ...);
    memory_ = std::make_shared<AlignedVector<std::byte>>(total);
    const auto move = [this](auto& array) { this->take(array); };
    (each_array(parts, move), ...);
  }

 private:
  template <class T>
  void take(SharedArray<T>& array) {
    std::byte* to = memory_->data() + used_;
    if (!array.empty()) std::memcpy(to, array.data(), array.bytes());
    used_ += whole_lines(array.bytes());
    array = SharedArray<T>({reinterpret_cast<const T*>(to), array.size()}, memory_);
  }
  void take(AnyMatrix& matrix) {
    SharedArray<std::byte> bytes = matrix.shared_bytes();
    take(bytes);
    matrix = AnyMatrix(std::move(bytes), matrix.dtype(), matrix.rows(), matrix.cols());
  }

  std::shared_ptr<AlignedVector<std::byte>> memory_;
  std::size_t used_ = 0;
};

}  // namespace

void pack(KeyStore& store) {
  KeyStore::Parts parts = store.parts();
  const Packer packer(parts);
  store = KeyStore::from_parts(std::move(parts));
}

void pack(KeyStore& store, Sketch& sketch) {
  KeyStore::Parts store_parts = store.parts();
  Sketch::Parts sketch_parts = sketch.parts();
  const Packer packer(store_parts, sketch_parts);
  store = KeyStore::from_parts(std::move(store_parts));
  sketch = Sketch::from_parts(std::move(sketch_parts), store.size());
}

void pack(KeyStore& store, Graph& graph, Router& router) {
  KeyStore::Parts store_parts = store.parts();
  Graph::Parts graph_parts = graph.parts();
  Router::Parts router_parts = router.parts();
  const Packer packer(store_parts, graph_parts, router_parts);
  store = KeyStore::from_parts(std::move(store_parts));
  graph = Graph::from_parts(std::move(graph_parts));
  router = Router::from_parts(std::move(router_parts), store.size());
}

}  // namespace keyseek
