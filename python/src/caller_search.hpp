/// A search written in Python, in the place of our indexes.
#pragma once

#include <nanobind/nanobind.h>

#include "keyseek/decode_params.hpp"

namespace nb = nanobind;

namespace keyseek::python {

/// make(keys [n, d] float32) -> search(queries [G, d] float32, k) -> (ids [G, k], scores [G, k]).
/// Called with or without the GIL, from any thread.
[[nodiscard]] IndexKeys index_keys_of(nb::callable make);

}  // namespace keyseek::python
