/// Every whole number that Python hands over comes through here.
#include "whole.hpp"

#include <limits>

#include "errors.hpp"

namespace keyseek::python {
namespace {

/// A Python int. True and False are no numbers, and 2.0 is none that counts.
nb::object whole_number(nb::handle value, std::string_view name, std::string_view wanted) {
  if (is_flag(value) || PyIndex_Check(value.ptr()) == 0)
    refuse_type("{} is {} ({}), must be {}", name, nb::repr(value).c_str(),
                Py_TYPE(value.ptr())->tp_name, wanted);
  nb::object number = nb::steal(PyNumber_Index(value.ptr()));
  if (!number.is_valid()) nb::raise_python_error();
  return number;
}

[[noreturn]] void refuse_range(nb::handle number, std::string_view name, const char* range) {
  PyErr_Clear();
  refuse("{} is {}, must be a whole number from {}", name, nb::repr(number).c_str(), range);
}

}  // namespace

bool is_flag(nb::handle value) {
  const std::string_view type = Py_TYPE(value.ptr())->tp_name;
  return nb::isinstance<nb::bool_>(value) || type == "numpy.bool" || type == "numpy.bool_";
}

std::size_t count_of(nb::handle value, std::string_view name, std::string_view wanted) {
  const nb::object number = whole_number(value, name, wanted);
  const std::uint64_t count = PyLong_AsUnsignedLongLong(number.ptr());
  if (PyErr_Occurred() != nullptr) refuse_range(number, name, "0 to 2^64 - 1");
  return count;
}

std::uint32_t small_count_of(nb::handle value, std::string_view name) {
  const nb::object number = whole_number(value, name, "a whole number");
  const std::uint64_t count = PyLong_AsUnsignedLongLong(number.ptr());
  if (PyErr_Occurred() != nullptr || count > std::numeric_limits<std::uint32_t>::max())
    refuse_range(number, name, "0 to 2^32 - 1");
  return static_cast<std::uint32_t>(count);
}

int int_of(nb::handle value, std::string_view name) {
  const nb::object number = whole_number(value, name, "a whole number");
  const long long whole = PyLong_AsLongLong(number.ptr());
  using Limits = std::numeric_limits<int>;
  if (PyErr_Occurred() != nullptr || whole < Limits::min() || whole > Limits::max())
    refuse_range(number, name, "-2^31 to 2^31 - 1");
  return static_cast<int>(whole);
}

}  // namespace keyseek::python
