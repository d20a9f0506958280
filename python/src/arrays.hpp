/// NumPy arrays in and out of the library.
///
/// Arrays come in without a copy or not at all: what does not fit is refused with a sentence
/// that names the argument and what it is. Anything in CPU memory that speaks DLPack or the
/// buffer protocol will do, so PyTorch's tensors are arrays too.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "keyseek/allowed_keys.hpp"
#include "keyseek/matrix.hpp"
#include "keyseek/pages.hpp"

namespace nb = nanobind;

namespace keyseek::python {

[[nodiscard]] inline bool is_anything(PyObject*) noexcept { return true; }

/// An argument that has to be an array. Checked by the functions below and not by nanobind,
/// whose message could not say which argument is wrong in which way.
class Array : public nb::object {
  NB_OBJECT_DEFAULT(Array, object, "numpy.typing.NDArray", is_anything)
};

/// A look at an array, and what keeps it alive. Destroyed with the GIL held.
template <class View>
struct Borrowed {
  nb::ndarray<nb::ro> owner;
  View view;
};

/// float32, float16, bfloat16 (of ml_dtypes or PyTorch) or int8, [n, d].
[[nodiscard]] Borrowed<AnyMatrixView> borrow_vectors(const Array& array, const char* name);
/// Room for vectors, [m, n, d] of float32, float16 or bfloat16.
struct Room {
  nb::ndarray<> owner;
  std::byte* data;
  Dtype dtype;
  std::size_t blocks, rows, cols;
};
[[nodiscard]] Room borrow_room(const Array& array, const char* name);
/// Of keys or values in pages, [pages, page_rows, d] of float32, float16 or bfloat16, or [n, d] of
/// one page; with any strides, but the last side is contiguous. Keeps the array alive.
[[nodiscard]] RowPages borrow_pages(const Array& array, const char* name);
/// float32, [n, d].
[[nodiscard]] Borrowed<MatrixView<float>> borrow_floats(const Array& array, const char* name);
/// Queries [n, d]: float32 in place; float16 and bfloat16 are copied, as float32.
struct Queries {
  Borrowed<AnyMatrixView> given;
  Matrix<float> converted;
  MatrixView<float> view;
};
[[nodiscard]] Queries borrow_queries(const Array& array, const char* name);
/// Which of so many keys may be found: bool [keys], or ids [m] int64.
[[nodiscard]] AllowedKeys copy_allowed(const Array& array, const char* name, std::size_t keys);
/// float32, [n].
[[nodiscard]] std::vector<float> copy_floats(const Array& array, const char* name);
/// float64, [n].
[[nodiscard]] std::vector<double> copy_doubles(const Array& array, const char* name);
/// int64, [n], not negative.
[[nodiscard]] std::vector<std::size_t> copy_positions(const Array& array, const char* name);
/// int32, int64 or uint32, [m, k]; -1 becomes kNoId.
[[nodiscard]] Matrix<Id> copy_ids(const Array& array, const char* name);

[[nodiscard]] Matrix<float> copy_matrix(MatrixView<float> view);

template <class T>
using Vector = nb::ndarray<nb::numpy, T, nb::ndim<1>>;
template <class T>
using Table = nb::ndarray<nb::numpy, T, nb::ndim<2>>;

/// Keeps `values` alive as long as somebody holds the capsule.
template <class Values>
[[nodiscard]] nb::capsule kept(Values&& values) {
  auto held = std::make_unique<Values>(std::forward<Values>(values));
  nb::capsule owner(held.get(), [](void* p) noexcept { delete static_cast<Values*>(p); });
  static_cast<void>(held.release());
  return owner;
}

/// An array that takes over `values`.
template <class T>
[[nodiscard]] Table<T> numpy_of(Matrix<T>&& values) {
  const nb::capsule owner = kept(std::move(values));
  auto* matrix = static_cast<Matrix<T>*>(owner.data());
  return Table<T>(matrix->data(), {matrix->rows(), matrix->cols()}, owner);
}
template <class T>
[[nodiscard]] Vector<T> numpy_of(std::vector<T>&& values) {
  const nb::capsule owner = kept(std::move(values));
  auto* vector = static_cast<std::vector<T>*>(owner.data());
  return Vector<T>(vector->data(), {vector->size()}, owner);
}

/// A read-only array that looks at memory `owner` keeps alive.
[[nodiscard]] inline Table<const float> numpy_view(MatrixView<float> m, nb::handle owner) {
  return Table<const float>(m.data, {m.rows, m.cols}, owner);
}
[[nodiscard]] nb::ndarray<nb::numpy, nb::ro> numpy_view(AnyMatrixView m, nb::handle owner);

/// A new array of int64 with -1 for kNoId.
[[nodiscard]] Table<std::int64_t> numpy_ids(MatrixView<Id> ids);

}  // namespace keyseek::python
