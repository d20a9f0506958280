/// Python's whole numbers as arguments: what counts, names a device or says how many threads.
#pragma once

#include <nanobind/nanobind.h>

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace nb = nanobind;

namespace keyseek::python {

[[nodiscard]] inline bool may_be_whole(PyObject*) noexcept { return true; }

/// An argument that has to be a whole number. Checked by the functions below and not by nanobind,
/// which takes True for 1, and whose message about 2^63 would not name the argument. The GIL is
/// held where they are called.
class Whole : public nb::object {
  NB_OBJECT_DEFAULT(Whole, object, "int", may_be_whole)
};

/// NumPy's too.
[[nodiscard]] bool is_flag(nb::handle value);

/// From 0 to 2^64 - 1. Throws TypeError, or Error(invalid_argument), that names the argument and
/// the value. `wanted`: what it must be of.
[[nodiscard]] std::size_t count_of(nb::handle value, std::string_view name,
                                   std::string_view wanted = "a whole number");
/// From 0 to 2^32 - 1.
[[nodiscard]] std::uint32_t small_count_of(nb::handle value, std::string_view name);
/// From -2^31 to 2^31 - 1; who uses it says which of them make sense.
[[nodiscard]] int int_of(nb::handle value, std::string_view name);

}  // namespace keyseek::python
