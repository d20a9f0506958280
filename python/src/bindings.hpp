/// What the files here add to the module, each the part of one public header.
#pragma once

#include <nanobind/nanobind.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "arrays.hpp"
#include "keyseek/decode.hpp"
#include "keyseek/index.hpp"
#include "whole.hpp"

namespace nb = nanobind;

namespace keyseek::python {

/// Options of a projection index's search, where Python passes them.
struct ProjectionOptions {
  std::optional<double> target_recall;
  std::optional<Dials> dials;
  std::optional<Whole> max_scanned;
  std::optional<bool> scan_novel;
};

/// SearchParams from what Python passes; k and max_scanned are checked for sign.
[[nodiscard]] SearchParams search_params(const Whole& k, std::optional<float> beta,
                                         const ProjectionOptions& projection);

/// Checked options of a rotary embedding.
[[nodiscard]] RopeParams rope_params(double theta, const Whole& rotary_dim,
                                     const std::string& layout,
                                     const std::optional<Array>& frequencies,
                                     const Whole& rotary_first);

void bind_score(nb::module_& m);
void bind_knn(nb::module_& m);
void bind_rope(nb::module_& m);
void bind_search(nb::module_& m);
void bind_params(nb::module_& m);
void bind_index(nb::module_& m);
void bind_measure(nb::module_& m);
void bind_io(nb::module_& m);
void bind_sweep(nb::module_& m);
void bind_decode_params(nb::module_& m);
void bind_decode(nb::module_& m);
/// Numbers of pages.
[[nodiscard]] std::vector<Id> ids_of(const std::vector<Whole>& pages);
/// Adds to HeadCache what is about tokens in memory of somebody else's.
void bind_pages(nb::class_<HeadCache>& type);
void bind_decode_heads(nb::module_& m);
void bind_cuda(nb::module_& m);

}  // namespace keyseek::python
