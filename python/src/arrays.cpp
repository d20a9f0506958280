/// Arrays of NumPy, PyTorch and others as views of the library, and the way back.
#include "arrays.hpp"

#include <algorithm>
#include <string>

#include "errors.hpp"
#include "gil.hpp"

namespace keyseek::python {
namespace {

using nb::dlpack::dtype_code;

std::string name_of(nb::dlpack::dtype type) {
  const std::string bits = std::to_string(type.bits);
  switch (static_cast<dtype_code>(type.code)) {
    case dtype_code::Float:
      return "float" + bits;
    case dtype_code::Bfloat:
      return "bfloat" + bits;
    case dtype_code::Int:
      return "int" + bits;
    case dtype_code::UInt:
      return "uint" + bits;
    case dtype_code::Bool:
      return "bool";
    case dtype_code::Complex:
      return "complex" + bits;
    default:
      return "of another kind";
  }
}

std::string shape_of(const nb::ndarray<nb::ro>& array) {
  std::string text = "(";
  for (std::size_t i = 0; i < array.ndim(); ++i) {
    text += (i > 0 ? ", " : "") + std::to_string(array.shape(i));
  }
  return text + (array.ndim() == 1 ? ",)" : ")");
}

std::string text_of(const nb::object& object) { return nb::str(object).c_str(); }

std::string dtype_attribute(const Array& array) {
  return nb::hasattr(array, "dtype") ? text_of(array.attr("dtype")) : "";
}

bool is_contiguous(const nb::ndarray<nb::ro>& array) {
  std::int64_t expected = 1;
  for (std::size_t i = array.ndim(); i-- > 0;) {
    const auto extent = static_cast<std::int64_t>(array.shape(i));
    if (extent != 1 && array.stride(i) != expected) return false;
    expected *= extent;
  }
  return true;
}

bool is_aligned(const nb::ndarray<nb::ro>& array) {
  // NOLINTNEXTLINE(cppcoreguidelines-pro-type-reinterpret-cast): an address is a number
  return reinterpret_cast<std::uintptr_t>(array.data()) %
             std::max<std::size_t>(1, array.itemsize()) ==
         0;
}

void check_device(const nb::ndarray<nb::ro>& array, const std::string& name) {
  if (array.device_type() != nb::device::cpu::value)
    refuse("{} is not in CPU memory: copy it there first", name);
}

void check_layout(const nb::ndarray<nb::ro>& array, const std::string& name, std::size_t rank) {
  if (array.ndim() != rank) {
    refuse("{} has shape {}, must have {} dimension{}", name, shape_of(array), rank,
           rank == 1 ? "" : "s");
  }
  check_device(array, name);
  if (array.size() > 0 && !(is_contiguous(array) && is_aligned(array))) {
    refuse("{} of shape {} is not C-contiguous and aligned: pass numpy.ascontiguousarray({})", name,
           shape_of(array), name);
  }
}

/// The array in place, whatever it is.
nb::ndarray<nb::ro> import_any(const Array& array, const std::string& name) {
  nb::ndarray<nb::ro> result;
  if (!nb::try_cast(array, result, /*convert=*/false)) {
    const std::string dtype = dtype_attribute(array);
    refuse_type("{} is a {}{}, must be an array of numbers that can be read in place", name,
                text_of(array.type().attr("__name__")), dtype.empty() ? "" : " of " + dtype);
  }
  return result;
}

/// The array in place, with rank and layout checked.
nb::ndarray<nb::ro> import_array(const Array& array, const std::string& name, std::size_t rank) {
  auto result = import_any(array, name);
  check_layout(result, name, rank);
  return result;
}

// NumPy has no bfloat16 of its own and cannot hand on that of ml_dtypes, except as bits. (PyTorch's
// is called torch.bfloat16.)
constexpr const char* kBitsOfNumPy = "bfloat16";

Array bits_of(const Array& array) { return nb::borrow<Array>(array.attr("view")("uint16")); }

template <class... Types>
void require_dtype(const nb::ndarray<nb::ro>& array, const std::string& name, const char* wanted) {
  if (!((array.dtype() == nb::dtype<Types>()) || ...)) {
    refuse_type("{} holds {}, must hold {}", name, name_of(array.dtype()), wanted);
  }
}

template <class T>
const T* data_of(const nb::ndarray<nb::ro>& array) {
  return static_cast<const T*>(array.data());
}

Dtype dtype_of(const nb::ndarray<nb::ro>& array, const std::string& name) {
  const nb::dlpack::dtype type = array.dtype();
  if (type == nb::dtype<float>()) return Dtype::f32;
  if (type == nb::dtype<std::int8_t>()) return Dtype::i8;
  if (type.bits == 16 && type.code == static_cast<std::uint8_t>(dtype_code::Float))
    return Dtype::f16;
  if (type.bits == 16 && type.code == static_cast<std::uint8_t>(dtype_code::Bfloat))
    return Dtype::bf16;
  refuse_type("{} holds {}, must hold float32, float16, bfloat16 or int8", name, name_of(type));
}

Id id_of(std::int64_t value, const std::string& name, std::size_t row) {
  if (value < -1 || value >= std::int64_t{kNoId})
    refuse("{} holds {} in row {}, which is no id", name, value, row);
  return value < 0 ? kNoId : static_cast<Id>(value);
}

template <class T>
Matrix<Id> convert_ids(const nb::ndarray<nb::ro>& array, const std::string& name) {
  Matrix<Id> out(array.shape(0), array.shape(1));
  const T* values = data_of<T>(array);
  for (std::size_t i = 0; i < array.size(); ++i) {
    out.data()[i] = id_of(std::int64_t{values[i]}, name, i / out.cols());
  }
  return out;
}

}  // namespace

Room borrow_room(const Array& array, const char* name) {
  const bool as_bits = dtype_attribute(array) == kBitsOfNumPy;
  const Array plain = as_bits ? bits_of(array) : array;
  const auto seen = import_array(plain, name, 3);
  const Dtype dtype = as_bits ? Dtype::bf16 : dtype_of(seen, name);
  nb::ndarray<> owner;
  if (!nb::try_cast(plain, owner, /*convert=*/false)) refuse("{} is read-only", name);
  auto* data = static_cast<std::byte*>(owner.data());
  return {owner, data, dtype, seen.shape(0), seen.shape(1), seen.shape(2)};
}

Borrowed<AnyMatrixView> borrow_vectors(const Array& array, const char* name) {
  if (dtype_attribute(array) == kBitsOfNumPy) {
    auto owner = import_array(bits_of(array), name, 2);
    return {owner, {owner.data(), Dtype::bf16, owner.shape(0), owner.shape(1), owner.shape(1)}};
  }
  auto owner = import_array(array, name, 2);
  return {owner,
          {owner.data(), dtype_of(owner, name), owner.shape(0), owner.shape(1), owner.shape(1)}};
}

RowPages borrow_pages(const Array& array, const char* name) {
  const bool as_bits = dtype_attribute(array) == kBitsOfNumPy;
  auto seen = import_any(as_bits ? bits_of(array) : array, name);
  const std::size_t rank = seen.ndim();
  if (rank != 2 && rank != 3)
    refuse("{} has shape {}, must be [pages, page_rows, d] or [n, d]", name, shape_of(seen));
  check_device(seen, name);
  RowPages out;
  out.dtype = as_bits ? Dtype::bf16 : dtype_of(seen, name);
  out.pages = rank == 3 ? seen.shape(0) : 1;
  out.page_rows = seen.shape(rank - 2);
  out.cols = seen.shape(rank - 1);
  const auto row = seen.stride(rank - 2), page = rank == 3 ? seen.stride(0) : 0;
  if (row < 0 || page < 0 || (out.cols > 1 && seen.stride(rank - 1) != 1))
    refuse("{} of shape {} has rows that are not contiguous, or lie backwards", name,
           shape_of(seen));
  // Of a side of one element, the stride says nothing.
  const bool one_row = out.page_rows == 1, one_page = out.pages == 1;
  out.page_stride = static_cast<std::size_t>(page);
  out.row_stride = !one_row ? static_cast<std::size_t>(row) : one_page ? out.cols : out.page_stride;
  if (one_page) out.page_stride = out.page_rows * out.row_stride;
  const std::size_t elements =
      seen.size() == 0
          ? 0
          : (out.pages - 1) * out.page_stride + (out.page_rows - 1) * out.row_stride + out.cols;
  out.memory = {static_cast<const std::byte*>(seen.data()), elements * size_of(out.dtype)};
  out.owner = std::shared_ptr<const void>(new nb::ndarray<nb::ro>(std::move(seen)),
                                          [](const nb::ndarray<nb::ro>* last) {
                                            const GilHeld held;
                                            delete last;
                                          });
  return out;
}

Borrowed<MatrixView<float>> borrow_floats(const Array& array, const char* name) {
  auto owner = import_array(array, name, 2);
  require_dtype<float>(owner, name, "float32");
  return {owner, {data_of<float>(owner), owner.shape(0), owner.shape(1)}};
}

Queries borrow_queries(const Array& array, const char* name) {
  const std::string dtype = dtype_attribute(array);
  if (dtype == "int8" || dtype == "float64")
    refuse_type("{} holds {}, must hold float32, float16 or bfloat16", name, dtype);
  Queries queries{.given = borrow_vectors(array, name), .converted = {}, .view = {}};
  const AnyMatrixView& given = queries.given.view;
  if (given.dtype == Dtype::f32) {
    queries.view = {static_cast<const float*>(given.data), given.rows, given.cols};
  } else {
    queries.converted = to_f32(given);
    queries.view = queries.converted.view();
  }
  return queries;
}

AllowedKeys copy_allowed(const Array& array, const char* name, std::size_t keys) {
  const auto owner = import_array(array, name, 1);
  require_dtype<bool, std::int64_t>(owner, name, "bool or int64");
  AllowedKeys allowed(keys);
  if (owner.dtype() == nb::dtype<bool>()) {
    if (owner.size() != keys)
      refuse("{} has {} entries, but there are {} keys", name, owner.size(), keys);
    for (std::size_t i = 0; i < keys; ++i)
      if (data_of<bool>(owner)[i]) allowed.allow(static_cast<Id>(i));
    return allowed;
  }
  for (std::size_t i = 0; i < owner.size(); ++i) {
    const std::int64_t id = data_of<std::int64_t>(owner)[i];
    if (id < 0 || static_cast<std::uint64_t>(id) >= keys)
      refuse("{} holds {} at {}, but there are {} keys", name, id, i, keys);
    allowed.allow(static_cast<Id>(id));
  }
  return allowed;
}

std::vector<float> copy_floats(const Array& array, const char* name) {
  const auto owner = import_array(array, name, 1);
  require_dtype<float>(owner, name, "float32");
  return {data_of<float>(owner), data_of<float>(owner) + owner.size()};
}

std::vector<double> copy_doubles(const Array& array, const char* name) {
  const auto owner = import_array(array, name, 1);
  require_dtype<double>(owner, name, "float64");
  return {data_of<double>(owner), data_of<double>(owner) + owner.size()};
}

std::vector<std::size_t> copy_positions(const Array& array, const char* name) {
  const auto owner = import_array(array, name, 1);
  require_dtype<std::int64_t>(owner, name, "int64");
  std::vector<std::size_t> out(owner.size());
  for (std::size_t i = 0; i < out.size(); ++i) {
    const std::int64_t value = data_of<std::int64_t>(owner)[i];
    if (value < 0) refuse("{} holds {} at {}, must not be negative", name, value, i);
    out[i] = static_cast<std::size_t>(value);
  }
  return out;
}

Matrix<Id> copy_ids(const Array& array, const char* name) {
  const auto owner = import_array(array, name, 2);
  require_dtype<std::int64_t, std::int32_t, std::uint32_t>(owner, name, "int64, int32 or uint32");
  if (owner.dtype() == nb::dtype<std::int64_t>()) return convert_ids<std::int64_t>(owner, name);
  if (owner.dtype() == nb::dtype<std::int32_t>()) return convert_ids<std::int32_t>(owner, name);
  return convert_ids<std::uint32_t>(owner, name);
}

Matrix<float> copy_matrix(MatrixView<float> view) {
  Matrix<float> out(view.rows, view.cols);
  for (std::size_t i = 0; i < view.rows; ++i) std::copy_n(view.row(i), view.cols, out.row(i));
  return out;
}

nb::ndarray<nb::numpy, nb::ro> numpy_view(AnyMatrixView m, nb::handle owner) {
  const auto type = [&]() -> nb::dlpack::dtype {
    switch (m.dtype) {
      case Dtype::f32:
        return nb::dtype<float>();
      case Dtype::i8:
        return nb::dtype<std::int8_t>();
      case Dtype::f16:
        return {static_cast<std::uint8_t>(dtype_code::Float), 16, 1};
      case Dtype::bf16:
        return nb::dtype<std::uint16_t>();  // as bits
    }
    return nb::dtype<std::uint8_t>();
  }();
  return nb::ndarray<nb::numpy, nb::ro>(m.data, {m.rows, m.cols}, owner, {}, type);
}

Table<std::int64_t> numpy_ids(MatrixView<Id> ids) {
  Matrix<std::int64_t> out(ids.rows, ids.cols);
  for (std::size_t i = 0; i < ids.rows; ++i) {
    std::transform(ids.row(i), ids.row(i) + ids.cols, out.row(i),
                   [](Id id) { return id == kNoId ? std::int64_t{-1} : std::int64_t{id}; });
  }
  return numpy_of(std::move(out));
}

}  // namespace keyseek::python
