/// Reads and writes the vector files of the benchmarks (.fbin, .fvecs and their kin), by extension.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/fail.hpp"
#include "file/atomic_file.hpp"
#include "file/input_file.hpp"
#include "io/extension.hpp"
#include "io/named_dataset.hpp"
#include "io/npy.hpp"
#include "io/rows.hpp"
#include "io/shape.hpp"
#include "io/vecs.hpp"
#include "keyseek/io.hpp"

namespace keyseek::io {
namespace {

[[noreturn]] void fail_extension(const std::filesystem::path& path, std::string_view what,
                                 std::string_view known) {
  const std::string_view advice =
      extension_of(path) == ".bin"
          ? " (DiskANN's .bin is the same format under another name: rename it to .fbin, .i8bin or "
            ".u8bin, by its type)"
          : "";
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

std::string bin_header(std::size_t rows, std::size_t cols) {
  const std::array<std::uint32_t, 2> sides = {static_cast<std::uint32_t>(rows),
                                              static_cast<std::uint32_t>(cols)};
  std::string bytes(kBinHeader, '\0');
  std::memcpy(bytes.data(), sides.data(), kBinHeader);
  return bytes;
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
  if (header.type == "u1") return read_as_float<std::uint8_t>(file, header.data, header.shape);
  fail(ErrorCode::unsupported, "{}: npy type '{}', vectors must be f2, f4, f8, i1 or u1",
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

/// The elements of .ivecs are signed, and -1 is kNoId.
void require_signed(std::span<const Id> row, std::size_t number) {
  for (const Id id : row) {
    require(id <= INT32_MAX || id == kNoId, "ids: row {} holds {}, which .ivecs cannot", number,
            id);
  }
}

}  // namespace

AnyMatrix read_vectors(const std::filesystem::path& path, const Hdf5Access& access) {
  if (const auto dataset = named_dataset(path)) return read_dataset(*dataset, access);
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
  if (extension == ".fvecs") return read_fvecs(InputFile(path));
  if (extension == ".bvecs") return read_bvecs(InputFile(path));
  if (extension == ".npy") return read_npy_vectors(InputFile(path));
  fail_extension(path, "vectors are read from",
                 ".fbin, .f16bin, .i8bin, .u8bin, .fvecs, .bvecs, .npy, .h5, .hdf5");
}

void write_vectors(const std::filesystem::path& path, AnyMatrixView vectors) {
  check_sides("vectors", vectors.rows, vectors.cols);
  if (const auto dataset = named_dataset(path)) return write_dataset(*dataset, vectors);
  const std::string extension = extension_of(path);
  const auto write = [&](const std::string& header, RowFormat format) {
    AtomicFile file(path);
    file.write(std::as_bytes(std::span<const char>(header)));
    write_rows(file, vectors, format);
    file.commit();
  };
  const std::string sides = bin_header(vectors.rows, vectors.cols);
  if (extension == ".fbin") return write(sides, {RowElement::f32});
  if (extension == ".f16bin") return write(sides, {RowElement::f16});
  if (extension == ".i8bin") return write(sides, {RowElement::i8});
  if (extension == ".u8bin") return write(sides, {RowElement::u8});
  if (extension == ".fvecs") return write("", {RowElement::f32, true});
  if (extension == ".bvecs") return write("", {RowElement::u8, true});
  if (extension != ".npy") {
    fail_extension(path, "vectors are written to",
                   ".fbin, .f16bin, .i8bin, .u8bin, .fvecs, .bvecs, .npy, .h5, .hdf5");
  }
  // NumPy has no bf16; f32 holds every value of it.
  const auto as = vectors.dtype == Dtype::f16  ? RowElement::f16
                  : vectors.dtype == Dtype::i8 ? RowElement::i8
                                               : RowElement::f32;
  const std::string_view type = as == RowElement::f32 ? "f4" : as == RowElement::f16 ? "f2" : "i1";
  write(make_npy_header(type, {vectors.rows, vectors.cols}), {as});
}

Matrix<Id> read_ids(const std::filesystem::path& path, const Hdf5Access& access) {
  if (const auto dataset = named_dataset(path)) return read_id_dataset(*dataset, access);
  const std::string extension = extension_of(path);
  if (extension == ".npy") return read_npy_ids(InputFile(path));
  if (extension == ".ivecs") return read_ivecs(InputFile(path));
  if (extension != ".ibin")
    fail_extension(path, "ids are read from", ".ibin, .ivecs, .npy, .h5, .hdf5");
  const InputFile file(path);
  const Shape shape = read_bin_header(file, sizeof(Id));
  Matrix<Id> ids(shape.rows, shape.cols);
  file.read_at(kBinHeader, std::as_writable_bytes(std::span(ids.data(), shape.rows * shape.cols)));
  return ids;
}

void write_ids(const std::filesystem::path& path, MatrixView<Id> ids) {
  check_sides("ids", ids.rows, ids.cols);
  if (const auto dataset = named_dataset(path)) return write_id_dataset(*dataset, ids);
  const std::string extension = extension_of(path);
  const bool npy = extension == ".npy", counted = extension == ".ivecs";
  if (!npy && !counted && extension != ".ibin")
    fail_extension(path, "ids are written to", ".ibin, .ivecs, .npy, .h5, .hdf5");
  AtomicFile file(path);
  if (npy) {
    // Signed, so that "no key" reads as -1; wide enough for every id.
    file.write(std::as_bytes(std::span<const char>(make_npy_header("i8", {ids.rows, ids.cols}))));
  } else if (!counted) {
    file.write(std::as_bytes(std::span<const char>(bin_header(ids.rows, ids.cols))));
  }
  std::vector<std::int64_t> wide(ids.cols);
  const auto cols = static_cast<std::uint32_t>(ids.cols);
  for (std::size_t i = 0; i < ids.rows; ++i) {
    const std::span row(ids.row(i), ids.cols);
    if (npy) {
      std::transform(row.begin(), row.end(), wide.begin(),
                     [](Id id) { return id == kNoId ? -1 : std::int64_t{id}; });
      file.write(std::as_bytes(std::span(wide)));
      continue;
    }
    if (counted) {
      require_signed(row, i);
      file.write(std::as_bytes(std::span(&cols, 1)));
    }
    file.write(std::as_bytes(row));
  }
  file.commit();
}

}  // namespace keyseek::io
