/// Reads matrices and attributes of HDF5 files and checks them before they are believed.
#include "io/hdf5_reader.hpp"

#include <algorithm>
#include <cmath>
#include <span>

#include "base/fail.hpp"
#include "io/hdf5_helper.hpp"
#include "io/hdf5_library.hpp"
#include "io/rows.hpp"

namespace keyseek::io::hdf5 {
namespace {

std::unique_ptr<Backend> open_backend(const InputFile& file, const Hdf5Access& access) {
  if (!access.helper.empty()) return std::make_unique<Helper>(file, access);
  return std::make_unique<Library>(file.path(), file.path().string(), file.size());
}

}  // namespace

Dataset::Dataset(Backend& backend, const InputFile& file, std::string name, std::size_t rank)
    : backend_(backend),
      file_(file),
      name_(std::move(name)),
      where_(fmt::format("{}: dataset {}", file.path().string(), name_)),
      facts_(backend.dataset(name_, rank)) {
  // A helper that a crafted file took over may have said anything.
  const std::uint64_t plane = byte_size(where_, {rows(), cols()}, size_of(facts_.stored));
  std::uint64_t bytes = 0, end = 0;
  if (planes() == 0 || __builtin_mul_overflow(plane, planes(), &bytes) ||
      __builtin_add_overflow(facts_.offset, bytes, &end)) {
    fail(ErrorCode::corrupt, "{}: {} planes of {} x {}", where_, planes(), rows(), cols());
  }
  if (facts_.offset != 0 && end > file.size()) {
    fail(ErrorCode::corrupt, "{}: ends at byte {} of a file of {}", where_, end, file.size());
  }
}

/// What lies in the file as it is wanted needs no library.
void Dataset::read_plane(std::uint64_t plane, std::span<std::byte> out) const {
  if (facts_.offset != 0) return file_.read_at(facts_.offset + plane * out.size(), out);
  backend_.read(name_, plane, 0, rows(), facts_.stored, out);
}

/// HDF5 turns what f32 cannot hold into infinity without a word.
void Dataset::check_range(std::uint64_t plane, const float* values) const {
  if (!facts_.wide) return;
  std::vector<double> row(cols());
  for (std::uint64_t i = 0; i < rows(); ++i) {
    const std::span narrow(values + i * cols(), cols());
    if (std::none_of(narrow.begin(), narrow.end(), [](float x) { return std::isinf(x); })) continue;
    backend_.read(name_, plane, i, 1, Form::f64, std::as_writable_bytes(std::span(row)));
    for (const double x : row) {
      if (std::isinf(x) || !std::isinf(static_cast<float>(x))) continue;
      fail(ErrorCode::unsupported, "{}: row {} holds {}, which f32 cannot: scale the vectors",
           where_, i, x);
    }
  }
}

AnyMatrix Dataset::read(std::uint64_t plane) const {
  const Dtype dtype = facts_.stored == Form::f16  ? Dtype::f16
                      : facts_.stored == Form::i8 ? Dtype::i8
                                                  : Dtype::f32;
  AlignedVector<std::byte> bytes(rows() * cols() * size_of(facts_.stored));
  read_plane(plane, bytes);
  if (dtype == Dtype::f32) check_range(plane, reinterpret_cast<const float*>(bytes.data()));
  return {SharedArray<std::byte>(std::move(bytes)), dtype, rows(), cols()};
}

Matrix<float> Dataset::read_floats(std::uint64_t plane) const {
  // HDF5 converts from float16 one bit field at a time; the library does not.
  if (facts_.stored != Form::f32) return to_f32(read(plane).view());
  Matrix<float> floats(rows(), cols());
  read_plane(plane, std::as_writable_bytes(std::span(floats.data(), rows() * cols())));
  check_range(plane, floats.data());
  return floats;
}

Matrix<Id> Dataset::read_ids() const {
  if (!facts_.integers)
    fail(ErrorCode::corrupt, "{}: elements are floats, must be integers", where_);
  Matrix<Id> ids(rows(), cols());
  const std::uint64_t per_block = std::clamp<std::uint64_t>(kBlockElements / cols(), 1, rows());
  std::vector<std::int64_t> block(per_block * cols());
  for (std::uint64_t first = 0; first < rows(); first += per_block) {
    const auto part = std::span(block).first(std::min(per_block, rows() - first) * cols());
    backend_.read(name_, 0, first, part.size() / cols(), Form::i64, std::as_writable_bytes(part));
    for (std::size_t i = 0; i < part.size(); ++i) {
      if (part[i] < -1 || part[i] > std::int64_t{kNoId}) {
        fail(ErrorCode::corrupt, "{}: row {} holds {}, which is no id", where_, first + i / cols(),
             part[i]);
      }
      ids.row(first)[i] = part[i] == -1 ? kNoId : static_cast<Id>(part[i]);
    }
  }
  return ids;
}

Reader::Reader(const std::filesystem::path& path, const Hdf5Access& access)
    : file_(path), backend_(open_backend(file_, access)) {}

std::optional<std::size_t> Reader::count(const std::string& object,
                                         const std::string& attribute) const {
  const auto value = number(object, attribute);
  if (!value) return std::nullopt;
  constexpr double kLimit = 0x1p53;
  if (*value < 0 || *value > kLimit || *value != std::floor(*value)) {
    fail(ErrorCode::corrupt, "{}: attribute {}: is {}, must be a whole number, 0 or more",
         path().string(), attribute, *value);
  }
  return static_cast<std::size_t>(*value);
}

}  // namespace keyseek::io::hdf5
