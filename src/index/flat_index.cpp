/// The flat index: codes in blocks, every one of which is scanned.
#include <algorithm>

#include "index/kinds.hpp"
#include "index/pack.hpp"
#include "search/flat_search.hpp"

namespace keyseek {
namespace {

class FlatState final : public IndexState {
 public:
  /// `store` is in blocks.
  explicit FlatState(KeyStore blocks)
      : IndexState(std::move(blocks)),
        largest_scale_(*std::max_element(store().scales(), store().scales() + store().size())) {}

  [[nodiscard]] IndexKind kind() const noexcept override { return IndexKind::flat; }

  void search(MatrixView<float> queries, const SearchParams& params, SearchScratch::State& scratch,
              Hits& hits) const override {
    search_flat(store(), largest_scale_, queries, params, scratch, hits);
  }

  [[nodiscard]] std::shared_ptr<const IndexState> appended(
      AnyMatrixView keys, MatrixView<float> /*training*/, const Execution& /*run*/) const override {
    KeyStore longer = store().appended(keys);
    pack(longer);
    return std::make_shared<FlatState>(std::move(longer));
  }

  [[nodiscard]] std::shared_ptr<const IndexState> truncated(
      std::size_t keys, const Execution& /*run*/) const override {
    KeyStore shorter = store().truncated(keys);
    pack(shorter);
    return std::make_shared<FlatState>(std::move(shorter));
  }

 private:
  float largest_scale_;  ///< of the keys' codes
};

std::shared_ptr<const IndexState> build(IndexBuilder& builder, const IndexParams& params) {
  require(std::holds_alternative<std::monostate>(params),
          "params are of another kind of index than flat");
  KeyStore store = KeyStore::encode(builder.keys(), {}, CodeLayout::blocks, builder.run());
  pack(store);
  return std::make_shared<FlatState>(std::move(store));
}

std::shared_ptr<const IndexState> read(const ContainerReader& /*file*/, KeyStore store) {
  return std::make_shared<FlatState>(std::move(store));
}

}  // namespace

constinit const KindOfIndex kFlatKind = {IndexKind::flat, "flat", CodeLayout::blocks, build, read};

}  // namespace keyseek
