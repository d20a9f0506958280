/// The options of decoding in Python: an object, and keywords of the same names.
#pragma once

#include <nanobind/nanobind.h>

#include <string>

#include "keyseek/decode_params.hpp"

namespace nb = nanobind;

namespace keyseek::python {

/// DecodeParams, and the search of the caller's own as the object that it is, or None.
struct Options {
  DecodeParams params;
  nb::object index = nb::none();

  /// Sets the options that `given` names. Throws Error, or Python's TypeError, that names the
  /// option and its value where it is another kind of thing, or nobody would read it.
  void take(const nb::kwargs& given);
  void take_index(const nb::object& function);
  /// Throws Error on what makes no sense; a scale that was not given yet is left out.
  void validate() const;
};

/// Options as a signature has them: "max_error: float = 0.05, safety: float = 0.8, ...".
[[nodiscard]] std::string option_signature();

}  // namespace keyseek::python
