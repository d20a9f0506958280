/// The sketch index: a sketch of every key, and the keys themselves for a second look.
#include "index/kinds.hpp"
#include "index/pack.hpp"
#include "search/sketch_search.hpp"

namespace keyseek {
namespace {

class SketchState final : public IndexState {
 public:
  /// `store` has no codes.
  SketchState(KeyStore store, Sketch sketch)
      : IndexState(std::move(store)), sketch_(std::move(sketch)) {}

  [[nodiscard]] IndexKind kind() const noexcept override { return IndexKind::sketch; }
  [[nodiscard]] std::size_t extra_bytes() const override { return sketch_.bytes(); }
  [[nodiscard]] std::vector<IndexFact> facts() const override {
    return {{"sketch_dim", sketch_.dim()}};
  }

  void search(MatrixView<float> queries, const SearchParams& params, SearchScratch::State& scratch,
              Hits& hits) const override {
    search_sketch(store(), sketch_, queries, params, scratch, hits);
  }

  [[nodiscard]] std::shared_ptr<const IndexState> appended(
      AnyMatrixView keys, MatrixView<float> /*training*/, const Execution& /*run*/) const override {
    KeyStore longer = store().appended(keys);
    Sketch sketch = sketch_.appended(keys);
    pack(longer, sketch);
    return std::make_shared<SketchState>(std::move(longer), std::move(sketch));
  }

  [[nodiscard]] std::shared_ptr<const IndexState> truncated(
      std::size_t keys, const Execution& /*run*/) const override {
    KeyStore shorter = store().truncated(keys);
    Sketch sketch = sketch_.truncated(keys);
    pack(shorter, sketch);
    return std::make_shared<SketchState>(std::move(shorter), std::move(sketch));
  }

  void write(IndexFileWriter& file) const override {
    file.add(store());
    file.add(sketch_);
  }

 private:
  Sketch sketch_;
};

std::shared_ptr<const IndexState> build(IndexBuilder& builder, const IndexParams& params) {
  const auto own = params_of<SketchParams>(params, IndexKind::sketch);
  const MatrixView<float> queries = builder.training().train;
  require(queries.rows > 0, "training.train is empty");
  KeyStore store = KeyStore::encode(builder.keys(), queries, CodeLayout::none, builder.run());
  Sketch sketch = Sketch::build(builder.keys().view(), queries, own, builder.run());
  pack(store, sketch);
  return std::make_shared<SketchState>(std::move(store), std::move(sketch));
}

std::shared_ptr<const IndexState> read(const ContainerReader& file, KeyStore store) {
  Sketch sketch = read_sketch(file, store);
  return std::make_shared<SketchState>(std::move(store), std::move(sketch));
}

}  // namespace

constinit const KindOfIndex kSketchKind = {IndexKind::sketch, "sketch", CodeLayout::none, build,
                                           read};

}  // namespace keyseek
