/// The scratch memory of searches from Python: one per thread, kept for the next search.
#pragma once

#include <nanobind/nanobind.h>

#include "keyseek/search.hpp"

namespace nb = nanobind;

namespace keyseek::python {

[[nodiscard]] inline SearchScratch& thread_scratch() {
  thread_local SearchScratch scratch;
  return scratch;
}

}  // namespace keyseek::python
