/// Reads and writes the vector files of the benchmarks (.fvecs, .fbin and their kin).
#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/fail.hpp"
#include "file/atomic_file.hpp"
#include "file/input_file.hpp"
#include "io/npy.hpp"
#include "io/rows.hpp"
#include "io/shape.hpp"
#include "keyseek/io.hpp"

namespace keyseek::io {
namespace {

std::string extension_of(const std::filesystem::path& path) {
  std::string text = path.extension().string();
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

[[noreturn]] void fail_extension(const std::filesystem::path& path, std::string_view what,
                                 std::string_view known) {
  const std::string extension = extension_of(path);
  std::string advice;
  if (extension == ".bin") {
    advice =
        " (DiskANN's .bin is the same format under another name: rename it to .fbin, .i8bin or "
        ".u8bin, by its type)";
  } else if (extension == ".fvecs" || extension == ".ivecs" || extension == ".bvecs") {
    advice =
        " (vectors of .fvecs and its kin repeat their dimension: read them with NumPy and save "
        "them as .npy)";
  }
  fail(ErrorCode::invalid_argument, "{}: extension '{}' is none that {}: {}{}", path.string(),
       path.extension().string(), what, known, advice);
}

// --- fbin and its kin: u32 rows, u32 columns, rows -------------------------------------

constexpr std::uint64_t kBinHeader = 8;

Shape read_bin_header(const InputFile& file, std::size_t element_size) {
  const std::string where = file.path().string();
  if (file.size() < kBinHeader) {
    fail(ErrorCode::corrupt, "{}: {} bytes, shorter than the header of {}", where, file.size(),
         kBinHeader);
  }
  std::array<std::uint32_t, 2> sides{};
  file.read_at(0, std::as_writable_bytes(std::span(sides)));
  const Shape shape{sides[0], sides[1]};
  const std::uint64_t bytes = byte_size(where, shape, element_size);
  if (bytes != file.size() - kBinHeader) {
    fail(ErrorCode::corrupt,
         "{}: {} rows of {} elements of {} bytes do not match the {} that follow", where,
         shape.rows, shape.cols, element_size, file.size() - kBinHeader);
  }
  return shape;
}

void write_bin_header(AtomicFile& file, std::size_t rows, std::size_t cols) {
  const std::array<std::uint32_t, 2> sides = {static_cast<std::uint32_t>(rows),
                                              static_cast<std::uint32_t>(cols)};
  file.write(std::as_bytes(std::span(sides)));
}

/// Elements that are stored as the library stores them.
AnyMatrix read_stored(const InputFile& file, std::uint64_t offset, Shape shape, Dtype dtype) {
  AlignedVector<std::byte> bytes(shape.rows * shape.cols * size_of(dtype));
  file.read_at(offset, bytes);
  return {SharedArray<std::byte>(std::move(bytes)), dtype, shape.rows, shape.cols};
}

/// Elements of type From as f32.
template <class From>
AnyMatrix read_as_float(const InputFile& file, std::uint64_t offset, Shape shape) {
  const std::size_t count = shape.rows * shape.cols;
  AlignedVector<std::byte> bytes(count * sizeof(float));
  auto* const out = reinterpret_cast<float*>(bytes.data());
  for_each_element<From>(file, offset, count, [&](std::size_t i, From x) {
    out[i] = static_cast<float>(x);
    if (!std::isinf(out[i]) || std::isinf(static_cast<double>(x))) return;
    fail(ErrorCode::unsupported, "{}: row {} holds {}, which f32 cannot: scale the vectors",
         file.path().string(), i / shape.cols, x);
  });
  return {SharedArray<std::byte>(std::move(bytes)), Dtype::f32, shape.rows, shape.cols};
}

AnyMatrix read_npy_vectors(const InputFile& file) {
  const NpyHeader header = read_npy_header(file);
  if (header.type == "f4") return read_stored(file, header.data, header.shape, Dtype::f32);
  if (header.type == "f2") return read_stored(file, header.data, header.shape, Dtype::f16);
  if (header.type == "i1") return read_stored(file, header.data, header.shape, Dtype::i8);
  if (header.type == "f8") return read_as_float<double>(file, header.data, header.shape);
  fail(ErrorCode::unsupported, "{}: npy type '{}', vectors must be f2, f4, f8 or i1",
       file.path().string(), header.type);
}

template <class From>
Matrix<Id> read_npy_ids_of(const InputFile& file, const NpyHeader& header) {
  Matrix<Id> ids(header.shape.rows, header.shape.cols);
  for_each_element<From>(
      file, header.data, ids.rows() * ids.cols(), [&](std::size_t i, From value) {
        const bool none = std::is_signed_v<From> && value == static_cast<From>(-1);
        if (!none && (value < From{0} || static_cast<std::uint64_t>(value) > kNoId)) {
          fail(ErrorCode::corrupt, "{}: row {} holds {}, which is no id", file.path().string(),
               i / ids.cols(), value);
        }
        ids.data()[i] = none ? kNoId : static_cast<Id>(value);
      });
  return ids;
}

Matrix<Id> read_npy_ids(const InputFile& file) {
  const NpyHeader header = read_npy_header(file);
  if (header.type == "i4") return read_npy_ids_of<std::int32_t>(file, header);
  if (header.type == "u4") return read_npy_ids_of<std::uint32_t>(file, header);
  if (header.type == "i8") return read_npy_ids_of<std::int64_t>(file, header);
  if (header.type == "u8") return read_npy_ids_of<std::uint64_t>(file, header);
  fail(ErrorCode::unsupported, "{}: npy type '{}', ids must be i4, u4, i8 or u8",
       file.path().string(), header.type);
}

void check_sides(std::string_view what, std::size_t rows, std::size_t cols) {
  constexpr std::size_t kLimit = 0xffffffff;
  require(rows > 0 && cols > 0, "{} are {} x {}, nothing to write", what, rows, cols);
  require(rows <= kLimit && cols <= kLimit, "{} are {} x {}, the sides must fit 32 bits", what,
          rows, cols);
}

}  // namespace

AnyMatrix read_vectors(const std::filesystem::path& path) {
  const std::string extension = extension_of(path);
  const auto read_bin = [&](Dtype dtype) {
    const InputFile file(path);
    return read_stored(file, kBinHeader, read_bin_header(file, size_of(dtype)), dtype);
  };
  if (extension == ".fbin") return read_bin(Dtype::f32);
  if (extension == ".f16bin") return read_bin(Dtype::f16);
  if (extension == ".i8bin") return read_bin(Dtype::i8);
  if (extension == ".u8bin") {
    const InputFile file(path);
    return read_as_float<std::uint8_t>(file, kBinHeader, read_bin_header(file, 1));
  }
  if (extension == ".npy") return read_npy_vectors(InputFile(path));
  fail_extension(path, "vectors are read from", ".fbin, .f16bin, .i8bin, .u8bin, .npy");
}

void write_vectors(const std::filesystem::path& path, AnyMatrixView vectors) {
  check_sides("vectors", vectors.rows, vectors.cols);
  const std::string extension = extension_of(path);
  const auto write_bin = [&](Dtype as) {
    AtomicFile file(path);
    write_bin_header(file, vectors.rows, vectors.cols);
    write_rows(file, vectors, as);
    file.commit();
  };
  if (extension == ".fbin") return write_bin(Dtype::f32);
  if (extension == ".f16bin") return write_bin(Dtype::f16);
  if (extension == ".i8bin") return write_bin(Dtype::i8);
  if (extension != ".npy") {
    fail_extension(path, "vectors are written to", ".fbin, .f16bin, .i8bin, .npy");
  }
  // NumPy has no bf16; f32 holds every value of it.
  const Dtype as = vectors.dtype == Dtype::bf16 ? Dtype::f32 : vectors.dtype;
  const std::string_view type = as == Dtype::f32 ? "f4" : as == Dtype::f16 ? "f2" : "i1";
  AtomicFile file(path);
  file.write(
      std::as_bytes(std::span<const char>(make_npy_header(type, {vectors.rows, vectors.cols}))));
  write_rows(file, vectors, as);
  file.commit();
}

Matrix<Id> read_ids(const std::filesystem::path& path) {
  const std::string extension = extension_of(path);
  if (extension == ".npy") return read_npy_ids(InputFile(path));
  if (extension != ".ibin") fail_extension(path, "ids are read from", ".ibin, .npy");
  const InputFile file(path);
  const Shape shape = read_bin_header(file, sizeof(Id));
  Matrix<Id> ids(shape.rows, shape.cols);
  file.read_at(kBinHeader, std::as_writable_bytes(std::span(ids.data(), shape.rows * shape.cols)));
  return ids;
}

void write_ids(const std::filesystem::path& path, MatrixView<Id> ids) {
  check_sides("ids", ids.rows, ids.cols);
  const std::string extension = extension_of(path);
  const bool npy = extension == ".npy";
  if (!npy && extension != ".ibin") fail_extension(path, "ids are written to", ".ibin, .npy");
  AtomicFile file(path);
  if (npy) {
    // Signed, so that "no key" reads as -1; wide enough for every id.
    file.write(std::as_bytes(std::span<const char>(make_npy_header("i8", {ids.rows, ids.cols}))));
  } else {
    write_bin_header(file, ids.rows, ids.cols);
  }
  std::vector<std::int64_t> wide(ids.cols);
  for (std::size_t i = 0; i < ids.rows; ++i) {
    const std::span row(ids.row(i), ids.cols);
    if (npy) {
      std::transform(row.begin(), row.end(), wide.begin(),
                     [](Id id) { return id == kNoId ? -1 : std::int64_t{id}; });
      file.write(std::as_bytes(std::span(wide)));
    } else {
      file.write(std::as_bytes(row));
    }
  }
  file.commit();
}

}  // namespace keyseek::io
