/// Copies and pickles of what Python holds.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <cstddef>
#include <span>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "gil.hpp"

namespace nb = nanobind;

namespace keyseek::python {

/// As it stands in a pickle: words of an enumeration as numbers.
template <class T>
using Pickled = std::conditional_t<std::is_enum_v<T>, int, T>;

/// An aggregate, pickled member by member. What has rules of its own is checked by them.
template <class T, class... Members>
void pickle_members(nb::class_<T>& type, Members T::*... members) {
  type.def(
          "__getstate__",
          [members...](const T& self) {
            return std::tuple<Pickled<Members>...>(static_cast<Pickled<Members>>(self.*members)...);
          })
      .def("__setstate__", [members...](T& self, const std::tuple<Pickled<Members>...>& state) {
        T value{};
        std::apply(
            [&](const auto&... each) { ((value.*members = static_cast<Members>(each)), ...); },
            state);
        if constexpr (requires { value.validate(); }) value.validate();
        new (&self) T(std::move(value));
      });
}

/// A value whose copies share what never changes: copy.copy and copy.deepcopy.
template <class T>
void copy_by_value(nb::class_<T>& type) {
  type.def("__copy__", [](const T& self) { return T(self); })
      .def(
          "__deepcopy__", [](const T& self, const nb::handle&) { return T(self); },
          nb::arg("memo"));
}

template <class T>
[[nodiscard]] nb::bytes pickled(const T& value) {
  std::vector<std::byte> bytes;
  {
    const GilReleased released;
    bytes = value.to_bytes();
  }
  return nb::bytes(bytes.data(), bytes.size());
}

template <class T>
[[nodiscard]] T unpickled(const nb::bytes& bytes) {
  const std::span<const std::byte> view(static_cast<const std::byte*>(bytes.data()), bytes.size());
  const GilReleased released;
  return T::from_bytes(view);
}

/// A value that has a file, pickled as its bytes.
template <class T>
void pickle_as_file(nb::class_<T>& type) {
  type.def("__getstate__", &pickled<T>).def("__setstate__", [](T& self, const nb::bytes& bytes) {
    new (&self) T(unpickled<T>(bytes));
  });
  copy_by_value(type);
}

}  // namespace keyseek::python
