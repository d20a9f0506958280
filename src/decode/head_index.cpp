// What a head asks of its index, for each kind that there is.
#include "decode/head_index.hpp"

#include <type_traits>
#include <utility>

#include "index/index_file.hpp"

namespace keyseek {
namespace {

template <class Index>
constexpr bool kIsOurs =
    !std::is_same_v<Index, std::monostate> && !std::is_same_v<Index, SearchKeys>;

}  // namespace

void HeadIndex::search(const HeadPlan& plan, MatrixView<float> queries, bool scan_novel,
                       const Hits* previous, SearchScratch& scratch, Hits& hits) const {
  if (const auto* custom = std::get_if<SearchKeys>(&index_)) {
    hits = {};
    (*custom)(queries, plan.stop.k, hits);
    return;
  }
  SearchParams params = {.k = plan.stop.k, .scan_novel = scan_novel, .previous = previous};
  if (plan.retriever == Retriever::projection) params.target_recall = plan.target_recall;
  std::visit(
      [&]<class Index>(const Index& index) {
        if constexpr (kIsOurs<Index>) index.search(queries, params, scratch, hits);
      },
      index_);
}

AnyMatrix HeadIndex::keys_or(const AnyMatrix& otherwise) const {
  return std::visit(
      [&]<class Index>(const Index& index) {
        if constexpr (kIsOurs<Index>) return index.keys();
        return otherwise;
      },
      index_);
}

std::size_t HeadIndex::bytes_or(const AnyMatrix& keys) const {
  return std::visit(
      [&]<class Index>(const Index& index) {
        if constexpr (kIsOurs<Index>) return index.bytes();
        return keys.bytes();
      },
      index_);
}

bool HeadIndex::can_append() const noexcept {
  return std::holds_alternative<ProjectionIndex>(index_);
}

void HeadIndex::append(AnyMatrixView keys, MatrixView<float> training, const Execution& run) {
  std::get<ProjectionIndex>(index_).append(keys, training, run);
}

bool HeadIndex::flat_is_better(double recall) const {
  for (const OperatingPoint& point : std::get<ProjectionIndex>(index_).dials())
    if (point.target_recall >= recall) return point.flat_is_better;
  return false;
}

void HeadIndex::write(IndexFileWriter& file) const {
  std::visit(
      [&]<class Index>(const Index& index) {
        if constexpr (kIsOurs<Index>) index.write(file);
      },
      index_);
}

HeadIndex HeadIndex::read(const ContainerReader& file, Retriever retriever) {
  if (retriever == Retriever::flat) return HeadIndex(FlatIndex::read(file));
  if (retriever == Retriever::sketch) return HeadIndex(SketchIndex::read(file));
  if (retriever == Retriever::projection) return HeadIndex(ProjectionIndex::read(file));
  return {};
}

}  // namespace keyseek
