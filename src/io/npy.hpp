/// Headers of NumPy's .npy files, versions 1 to 3
/// (numpy.org/doc/stable/reference/generated/numpy.lib.format.html).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "file/input_file.hpp"
#include "io/shape.hpp"

namespace keyseek::io {

struct NpyHeader {
  std::string type;        ///< kind and bytes, for example "f4"; little-endian
  Shape shape;             ///< both sides at least 1
  std::uint64_t data = 0;  ///< where the elements start; the file has room for exactly them
};

/// Throws Error(corrupt) when the header is malformed or the size is not the file's, and
/// Error(unsupported) for what is no little-endian 2-d array in C order.
[[nodiscard]] NpyHeader read_npy_header(const InputFile& file);

/// A version 1.0 header; `type` as above.
[[nodiscard]] std::string make_npy_header(std::string_view type, Shape shape);

}  // namespace keyseek::io
