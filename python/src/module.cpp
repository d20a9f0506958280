/// The module keyseek._core: the library on NumPy arrays. The package re-exports all of it.
#include <nanobind/nanobind.h>

#include "bindings.hpp"
#include "errors.hpp"
#include "keyseek/version.hpp"

NB_MODULE(_core, m) {
  using namespace keyseek::python;  // NOLINT(google-build-using-namespace): this module's own
  m.doc() = "The library keyseek on NumPy arrays.";
  m.attr("version") = nb::str(keyseek::kVersion.data(), keyseek::kVersion.size());
  // What daemon threads hold when the interpreter ends is not leaked, as the warning would say.
  nb::set_leak_warnings(false);
  translate_errors();
  bind_score(m);
  bind_knn(m);
  bind_rope(m);
  bind_search(m);
  bind_params(m);
  bind_index(m);
  bind_measure(m);
  bind_io(m);
  bind_sweep(m);
  bind_decode_params(m);
  bind_decode(m);
  bind_decode_heads(m);
  bind_cuda(m);
  explain_calls(m);
}
