#include "io/hdf5_reader.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <span>

#include "base/fail.hpp"
#include "file/input_file.hpp"
#include "io/rows.hpp"

namespace keyseek::io::hdf5 {
namespace {

Handle open_file(const std::filesystem::path& path) {
  const Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
#if H5_VERSION_GE(1, 10, 7)
  H5Pset_file_locking(access.get(), true, true);  // some file systems have no locks: go on
#endif
  Handle file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.get()), H5Fclose);
  if (!file) fail(ErrorCode::corrupt, "{}: no readable HDF5 file: {}", path.string(), reason());
  return file;
}

/// Compression that this build of HDF5 cannot undo.
void check_filters(const Handle& properties, const std::string& where) {
  const int filters = H5Pget_nfilters(properties.get());
  for (int i = 0; i < filters; ++i) {
    unsigned flags = 0, config = 0;
    std::size_t values = 0;
    std::array<char, 64> name{};
    const H5Z_filter_t filter =
        H5Pget_filter2(properties.get(), static_cast<unsigned>(i), &flags, &values, nullptr,
                       name.size() - 1, name.data(), &config);
    if (filter >= 0 && H5Zfilter_avail(filter) > 0) continue;
    fail(ErrorCode::unsupported, "{}: filter {} '{}' is not available; store it with gzip or plain",
         where, filter, name.data());
  }
}

}  // namespace

Dataset::Dataset(Handle dataset, std::string where, std::size_t rank, std::uint64_t file_size)
    : dataset_(std::move(dataset)),
      type_(H5Dget_type(dataset_.get()), H5Tclose),
      where_(std::move(where)),
      rank_(rank) {
  const H5T_class_t kind = H5Tget_class(type_.get());
  if ((kind != H5T_FLOAT && kind != H5T_INTEGER) || H5Tget_size(type_.get()) > 8) {
    fail(ErrorCode::unsupported, "{}: elements must be floats or integers of up to 8 bytes",
         where_);
  }
  const Handle space(H5Dget_space(dataset_.get()), H5Sclose);
  const int found = H5Sget_simple_extent_ndims(space.get());
  if (found != static_cast<int>(rank)) {
    fail(ErrorCode::corrupt, "{}: {} dimensions, must be {}", where_, found, rank);
  }
  std::array<hsize_t, 3> extents{};
  H5Sget_simple_extent_dims(space.get(), extents.data(), nullptr);
  if (rank == 3) planes_ = extents[0];
  shape_ = {extents[rank - 2], extents[rank - 1]};
  check_storage(file_size);
}

/// Extents are only a claim: there must be bytes behind them.
void Dataset::check_storage(std::uint64_t file_size) const {
  const Handle properties(H5Dget_create_plist(dataset_.get()), H5Pclose);
  const H5D_layout_t layout = H5Pget_layout(properties.get());
  const bool in_file = layout == H5D_CONTIGUOUS || layout == H5D_CHUNKED || layout == H5D_COMPACT;
  if (!in_file || H5Pget_external_count(properties.get()) != 0) {
    fail(ErrorCode::unsupported, "{}: the elements are in other files", where_);
  }
  check_filters(properties, where_);
  const std::uint64_t plane = byte_size(where_, shape_, H5Tget_size(type_.get()));
  std::uint64_t bytes = 0;
  if (planes_ == 0 || __builtin_mul_overflow(plane, planes_, &bytes)) {
    fail(ErrorCode::corrupt, "{}: {} planes of {} x {}", where_, planes_, shape_.rows, shape_.cols);
  }
  // Chunks may be compressed, by deflate to 1/1032 at best (zlib.net/zlib_tech.html).
  constexpr std::uint64_t kBestRatio = 1032;
  const std::uint64_t stored = H5Dget_storage_size(dataset_.get());
  const std::uint64_t needed = layout == H5D_CHUNKED ? bytes / kBestRatio : bytes;
  if (stored == 0 || stored < needed || stored > file_size) {
    fail(ErrorCode::corrupt, "{}: {} bytes of elements, but {} are stored in a file of {}", where_,
         bytes, stored, file_size);
  }
}

Dtype Dataset::stored_dtype() const {
  if (H5Tequal(type_.get(), half_type().get()) > 0) return Dtype::f16;
  const bool byte = H5Tget_class(type_.get()) == H5T_INTEGER && H5Tget_size(type_.get()) == 1 &&
                    H5Tget_sign(type_.get()) == H5T_SGN_2;
  return byte ? Dtype::i8 : Dtype::f32;
}

void Dataset::read_rows(std::uint64_t plane, std::uint64_t first, std::uint64_t count,
                        hid_t memory_type, void* out) const {
  const std::array<hsize_t, 3> start = {plane, first, 0};
  const std::array<hsize_t, 3> size = {1, count, shape_.cols};
  const std::size_t skip = 3 - rank_;
  const Handle space(H5Dget_space(dataset_.get()), H5Sclose);
  const Handle memory(H5Screate_simple(2, size.data() + 1, nullptr), H5Sclose);
  const bool done =
      H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, start.data() + skip, nullptr,
                          size.data() + skip, nullptr) >= 0 &&
      H5Dread(dataset_.get(), memory_type, memory.get(), space.get(), H5P_DEFAULT, out) >= 0;
  if (!done) fail(ErrorCode::corrupt, "{}: cannot be read: {}", where_, reason());
}

AnyMatrix Dataset::read(std::uint64_t plane) const {
  const Dtype dtype = stored_dtype();
  const Handle half = half_type();
  const hid_t type = dtype == Dtype::f16  ? half.get()
                     : dtype == Dtype::i8 ? H5T_NATIVE_INT8
                                          : H5T_NATIVE_FLOAT;
  AlignedVector<std::byte> bytes(shape_.rows * shape_.cols * size_of(dtype));
  read_rows(plane, 0, shape_.rows, type, bytes.data());
  return {SharedArray<std::byte>(std::move(bytes)), dtype, shape_.rows, shape_.cols};
}

Matrix<float> Dataset::read_floats(std::uint64_t plane) const {
  // HDF5 converts from float16 one bit field at a time; the library does not.
  if (stored_dtype() == Dtype::f16) return to_f32(read(plane).view());
  Matrix<float> floats(shape_.rows, shape_.cols);
  read_rows(plane, 0, shape_.rows, H5T_NATIVE_FLOAT, floats.data());
  return floats;
}

Matrix<Id> Dataset::read_ids() const {
  if (H5Tget_class(type_.get()) != H5T_INTEGER) {
    fail(ErrorCode::corrupt, "{}: elements are floats, must be integers", where_);
  }
  Matrix<Id> ids(shape_.rows, shape_.cols);
  const std::uint64_t per_block =
      std::clamp<std::uint64_t>(kBlockElements / ids.cols(), 1, ids.rows());
  std::vector<std::int64_t> block(per_block * ids.cols());
  for (std::uint64_t first = 0; first < ids.rows(); first += per_block) {
    const std::uint64_t rows = std::min(per_block, ids.rows() - first);
    read_rows(0, first, rows, H5T_NATIVE_INT64, block.data());
    for (std::size_t i = 0; i < rows * ids.cols(); ++i) {
      if (block[i] < -1 || block[i] > std::int64_t{kNoId}) {
        fail(ErrorCode::corrupt, "{}: row {} holds {}, which is no id", where_,
             first + i / ids.cols(), block[i]);
      }
      ids.row(first)[i] = block[i] == -1 ? kNoId : static_cast<Id>(block[i]);
    }
  }
  return ids;
}

Reader::Reader(const std::filesystem::path& path)
    : path_(path), size_(InputFile(path).size()), file_(open_file(path)) {}

bool Reader::has(const std::string& name) const {
  if (name == "/") return true;
  // HDF5 asks for one link at a time.
  for (std::size_t end = 0; end != std::string::npos;) {
    end = name.find('/', end + 1);
    if (H5Lexists(file_.get(), name.substr(0, end).c_str(), H5P_DEFAULT) <= 0) return false;
  }
  return H5Oexists_by_name(file_.get(), name.c_str(), H5P_DEFAULT) > 0;
}

std::vector<std::string> Reader::names(const std::string& group) const {
  const auto failed = [&]() {
    fail(ErrorCode::corrupt, "{}: group {} cannot be read: {}", path_.string(), group, reason());
  };
  const Handle handle(H5Gopen2(file_.get(), group.c_str(), H5P_DEFAULT), H5Gclose);
  H5G_info_t info{};
  if (!handle || H5Gget_info(handle.get(), &info) < 0) failed();
  std::vector<std::string> found;
  for (hsize_t i = 0; i < info.nlinks; ++i) {
    std::array<char, 256> name{};
    if (H5Lget_name_by_idx(handle.get(), ".", H5_INDEX_NAME, H5_ITER_INC, i, name.data(),
                           name.size(), H5P_DEFAULT) < 0) {
      failed();
    }
    found.emplace_back(name.data());
  }
  return found;
}

Dataset Reader::dataset(const std::string& name, std::size_t rank) const {
  std::string where = fmt::format("{}: dataset {}", path_.string(), name);
  if (!has(name)) fail(ErrorCode::corrupt, "{} is missing", where);
  Handle handle(H5Dopen2(file_.get(), name.c_str(), H5P_DEFAULT), H5Dclose);
  if (!handle) fail(ErrorCode::corrupt, "{}: is no dataset: {}", where, reason());
  return {std::move(handle), std::move(where), rank, size_};
}

std::string Reader::where(const std::string& attribute) const {
  return fmt::format("{}: attribute {}", path_.string(), attribute);
}

Handle Reader::open_attribute(const std::string& object, const std::string& attribute) const {
  if (!has(object) ||
      H5Aexists_by_name(file_.get(), object.c_str(), attribute.c_str(), H5P_DEFAULT) <= 0) {
    return {};
  }
  Handle handle(
      H5Aopen_by_name(file_.get(), object.c_str(), attribute.c_str(), H5P_DEFAULT, H5P_DEFAULT),
      H5Aclose);
  if (!handle) fail(ErrorCode::corrupt, "{}: cannot be read: {}", where(attribute), reason());
  const Handle space(H5Aget_space(handle.get()), H5Sclose);
  if (H5Sget_simple_extent_npoints(space.get()) != 1) {
    fail(ErrorCode::corrupt, "{}: must be a single value", where(attribute));
  }
  return handle;
}

std::optional<std::string> Reader::text(const std::string& object,
                                        const std::string& attribute) const {
  const Handle handle = open_attribute(object, attribute);
  if (!handle) return std::nullopt;
  const Handle type(H5Aget_type(handle.get()), H5Tclose);
  if (H5Tget_class(type.get()) != H5T_STRING) {
    fail(ErrorCode::corrupt, "{}: must be text", where(attribute));
  }
  const auto failed = [&]() {
    fail(ErrorCode::corrupt, "{}: cannot be read: {}", where(attribute), reason());
  };
  if (H5Tis_variable_str(type.get()) > 0) {
    char* letters = nullptr;
    if (H5Aread(handle.get(), type.get(), static_cast<void*>(&letters)) < 0) failed();
    std::string value = letters == nullptr ? "" : letters;
    H5free_memory(letters);
    return value;
  }
  if (H5Tget_size(type.get()) > size_) {
    fail(ErrorCode::corrupt, "{}: {} bytes in a file of {}", where(attribute),
         H5Tget_size(type.get()), size_);
  }
  std::string value(H5Tget_size(type.get()), '\0');
  if (H5Aread(handle.get(), type.get(), value.data()) < 0) failed();
  value.resize(std::min(value.find('\0'), value.size()));
  if (H5Tget_strpad(type.get()) == H5T_STR_SPACEPAD) {
    value.resize(value.find_last_not_of(' ') + 1);
  }
  return value;
}

std::optional<double> Reader::number(const std::string& object,
                                     const std::string& attribute) const {
  const Handle handle = open_attribute(object, attribute);
  if (!handle) return std::nullopt;
  const Handle type(H5Aget_type(handle.get()), H5Tclose);
  const H5T_class_t kind = H5Tget_class(type.get());
  double value = 0;
  if ((kind != H5T_FLOAT && kind != H5T_INTEGER) ||
      H5Aread(handle.get(), H5T_NATIVE_DOUBLE, &value) < 0 || !std::isfinite(value)) {
    fail(ErrorCode::corrupt, "{}: must be a finite number", where(attribute));
  }
  return value;
}

std::optional<std::size_t> Reader::count(const std::string& object,
                                         const std::string& attribute) const {
  const auto value = number(object, attribute);
  if (!value) return std::nullopt;
  constexpr double kLimit = 0x1p53;
  if (*value < 0 || *value > kLimit || *value != std::floor(*value)) {
    fail(ErrorCode::corrupt, "{}: is {}, must be a whole number, 0 or more", where(attribute),
         *value);
  }
  return static_cast<std::size_t>(*value);
}

}  // namespace keyseek::io::hdf5
