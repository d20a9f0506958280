/// keyseek::Error as the exceptions of python/keyseek/errors.py.
#pragma once

#include <fmt/format.h>
#include <nanobind/nanobind.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "keyseek/error.hpp"

namespace nb = nanobind;

namespace keyseek::python {

/// Python's TypeError.
[[noreturn]] void throw_type_error(const std::string& sentence);

template <class... Args>
[[noreturn]] void refuse(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(ErrorCode::invalid_argument, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
[[noreturn]] void refuse_type(fmt::format_string<Args...> format, Args&&... args) {
  throw_type_error(fmt::format(format, std::forward<Args>(args)...));
}

/// From now on a call of a function or method of `m` that fits no signature is a TypeError with a
/// sentence that names the argument (python/keyseek/signatures.py). After everything is bound.
void explain_calls(nb::module_& m);

/// From now on an Error that leaves a bound function arrives in Python.
void translate_errors();

}  // namespace keyseek::python
