/// What the files here add to the module, each the part of one public header.
#pragma once

#include <nanobind/nanobind.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "arrays.hpp"
#include "keyseek/index.hpp"

namespace nb = nanobind;

namespace keyseek::python {

/// A ProjectionIndex that remembers how it was built.
struct ReportedIndex {
  ProjectionIndex index;
  std::optional<BuildReport> report;
};

/// SearchParams from what Python passes; k, max_scanned and the like are checked for sign.
[[nodiscard]] SearchParams search_params(std::int64_t k, double target_recall,
                                         const std::optional<Dials>& dials,
                                         std::optional<float> beta,
                                         std::optional<std::int64_t> max_scanned, bool scan_novel,
                                         const Hits* previous);

/// Checked options of a rotary embedding.
[[nodiscard]] RopeParams rope_params(double theta, std::int64_t rotary_dim,
                                     const std::string& layout,
                                     const std::optional<Array>& frequencies,
                                     std::int64_t rotary_first);

void bind_score(nb::module_& m);
void bind_knn(nb::module_& m);
void bind_rope(nb::module_& m);
void bind_search(nb::module_& m);
void bind_params(nb::module_& m);
void bind_flat_index(nb::module_& m);
void bind_sketch_index(nb::module_& m);
void bind_projection_index(nb::module_& m);
void bind_measure(nb::module_& m);
void bind_io(nb::module_& m);
void bind_decode_params(nb::module_& m);
void bind_decode(nb::module_& m);
void bind_decode_heads(nb::module_& m);
void bind_cuda(nb::module_& m);

}  // namespace keyseek::python
