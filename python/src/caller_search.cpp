/// A search written in Python that takes the place of an index in a HeadCache.
#include "caller_search.hpp"

#include <algorithm>
#include <memory>
#include <utility>

#include "arrays.hpp"
#include "errors.hpp"
#include "gil.hpp"

namespace keyseek::python {
namespace {

/// A Python object that may be dropped by a thread without the GIL.
using Shared = std::shared_ptr<nb::object>;

Shared shared(nb::object object) {
  return {new nb::object(std::move(object)), [](nb::object* last) {
            const GilHeld held;
            delete last;
          }};
}

/// Padding, -1, is at the end of each row.
void take(const nb::object& found, std::size_t group, Hits& hits) {
  if (!nb::isinstance<nb::tuple>(found))
    refuse("search returned {}, must return ids and scores", nb::repr(found).c_str());
  const auto pair = nb::borrow<nb::tuple>(found);
  if (pair.size() != 2)
    refuse("search returned {} things, must return ids and scores", pair.size());
  const Matrix<Id> ids = copy_ids(nb::borrow<Array>(pair[0]), "ids of search");
  const auto scores = borrow_floats(nb::borrow<Array>(pair[1]), "scores of search");
  if (ids.rows() != group || scores.view.rows != group || scores.view.cols != ids.cols())
    refuse("search returned ids {} x {} and scores {} x {} for {} queries", ids.rows(), ids.cols(),
           scores.view.rows, scores.view.cols, group);
  hits.group = group;
  hits.k = ids.cols();
  hits.ids.assign(ids.data(), ids.data() + group * hits.k);
  hits.scores.clear();
  hits.count.clear();
  for (std::size_t g = 0; g < group; ++g) {
    hits.scores.insert(hits.scores.end(), scores.view.row(g), scores.view.row(g) + hits.k);
    hits.count.push_back(
        static_cast<std::size_t>(std::find(ids.row(g), ids.row(g) + hits.k, kNoId) - ids.row(g)));
  }
}

}  // namespace

IndexKeys index_keys_of(nb::callable make) {
  return [make = shared(std::move(make))](const AnyMatrix& keys) -> SearchKeys {
    const GilHeld held;
    const Shared search = shared(call_python(*make, numpy_of(to_f32(keys.view()))));
    return [search](MatrixView<float> queries, std::size_t k, Hits& hits) {
      const GilHeld also_held;
      take(call_python(*search, numpy_of(copy_matrix(queries)), k), queries.rows, hits);
    };
  };
}

}  // namespace keyseek::python
