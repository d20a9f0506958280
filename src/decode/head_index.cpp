/// What a head asks of what it searches: an index of any kind, or the caller's own search.
#include "decode/head_index.hpp"

#include "index/index_state.hpp"

namespace keyseek {

std::optional<IndexKind> kind_of(Retriever retriever) noexcept {
  switch (retriever) {
    case Retriever::flat:
      return IndexKind::flat;
    case Retriever::sketch:
      return IndexKind::sketch;
    case Retriever::projection:
      return IndexKind::projection;
    default:
      return {};
  }
}

void HeadIndex::search(const HeadPlan& plan, MatrixView<float> queries, bool scan_novel,
                       const Hits* previous, SearchScratch& scratch, Hits& hits) const {
  if (search_) {
    hits = {};
    search_(queries, plan.stop.k, hits);
    return;
  }
  SearchParams params = {.k = plan.stop.k, .previous = previous};
  if (plan.retriever == Retriever::projection)
    params.projection = {.target_recall = plan.target_recall, .scan_novel = scan_novel};
  index_.search(queries, params, scratch, hits);
}

AnyMatrix HeadIndex::keys_or(const AnyMatrix& otherwise) const {
  return index_.empty() ? otherwise : index_.keys();
}

std::size_t HeadIndex::bytes_or(const AnyMatrix& keys) const {
  return index_.empty() ? keys.bytes() : index_.bytes();
}

std::size_t HeadIndex::extra_bytes() const { return index_.empty() ? 0 : index_.extra_bytes(); }

bool HeadIndex::can_append() const {
  return !index_.empty() && index_.kind() == IndexKind::projection;
}

void HeadIndex::append(AnyMatrixView keys, MatrixView<float> training, const Execution& run) {
  index_.append(keys, training, run);
}

HeadIndex HeadIndex::truncated(std::size_t count) const {
  HeadIndex cut = *this;
  cut.index_.truncate(count, {.threads = 1});
  return cut;
}

bool HeadIndex::flat_is_better(double recall) const {
  for (const OperatingPoint& point : index_.operating_points())
    if (point.target_recall >= recall) return point.flat_is_better;
  return false;
}

void HeadIndex::write(IndexFileWriter& file) const {
  if (!index_.empty()) write_index(index_, file);
}

HeadIndex HeadIndex::read(const ContainerReader& file, Retriever retriever) {
  const auto kind = kind_of(retriever);
  return kind ? HeadIndex(read_index(*kind, file)) : HeadIndex();
}

}  // namespace keyseek
