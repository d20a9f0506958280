/// Opens HDF5 files with libhdf5 and refuses what would lead out of them.
#include "io/hdf5_library.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "base/fail.hpp"
#include "io/shape.hpp"

namespace keyseek::io::hdf5 {
namespace {

Handle open_file(const std::filesystem::path& path, const std::string& name) {
  const Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
#if H5_VERSION_GE(1, 10, 7)
  H5Pset_file_locking(access.get(), true, true);  // some file systems have no locks: go on
#endif
  Handle file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.get()), H5Fclose);
  if (!file) fail(ErrorCode::corrupt, "{}: no readable HDF5 file: {}", name, reason());
  return file;
}

/// For libhdf5, before it follows a link to another file, also one that hides behind a soft link.
herr_t refuse_other_file(const char*, const char*, const char*, const char*, unsigned*, hid_t,
                         void*) {
  return -1;
}

/// How objects are opened: `kind` is the property class of datasets, groups or links.
Handle stay_inside(hid_t kind) {
  Handle access(H5Pcreate(kind), H5Pclose);
  H5Pset_elink_cb(access.get(), refuse_other_file, nullptr);
  return access;
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
    const bool built_in = filter >= 0 && filter <= H5Z_FILTER_SCALEOFFSET;
    if (built_in && H5Zfilter_avail(filter) > 0) continue;
    fail(ErrorCode::unsupported, "{}: filter {} '{}' is not available; store it with gzip or plain",
         where, filter, name.data());
  }
}

/// Extents are only a claim: there must be bytes behind them.
void check_storage(const Handle& dataset, const std::string& where, const Facts& facts,
                   std::size_t element, std::uint64_t file_size) {
  const Handle properties(H5Dget_create_plist(dataset.get()), H5Pclose);
  const H5D_layout_t layout = H5Pget_layout(properties.get());
  const bool in_file = layout == H5D_CONTIGUOUS || layout == H5D_CHUNKED || layout == H5D_COMPACT;
  if (!in_file || H5Pget_external_count(properties.get()) != 0) {
    fail(ErrorCode::unsupported, "{}: the elements are in other files: copy them into this one",
         where);
  }
  check_filters(properties, where);
  const std::uint64_t plane = byte_size(where, {facts.rows, facts.cols}, element);
  std::uint64_t bytes = 0;
  if (facts.planes == 0 || __builtin_mul_overflow(plane, facts.planes, &bytes)) {
    fail(ErrorCode::corrupt, "{}: {} planes of {} x {}", where, facts.planes, facts.rows,
         facts.cols);
  }
  // Chunks may be compressed, by deflate to 1/1032 at best (zlib.net/zlib_tech.html).
  constexpr std::uint64_t kBestRatio = 1032;
  const std::uint64_t stored = H5Dget_storage_size(dataset.get());
  const std::uint64_t needed = layout == H5D_CHUNKED ? bytes / kBestRatio : bytes;
  if (stored > file_size) {
    fail(ErrorCode::corrupt, "{}: {} bytes of elements are said to be stored, but the file has {}",
         where, stored, file_size);
  }
  if (stored == 0 || stored < needed) {
    fail(ErrorCode::corrupt, "{}: {} bytes of elements, but only {} are stored", where, bytes,
         stored);
  }
}

/// Offset of contiguous elements that are stored as they are read; 0: they are not.
std::uint64_t offset_in_place(const Handle& dataset, const Handle& type, Form form) {
  const Handle properties(H5Dget_create_plist(dataset.get()), H5Pclose);
  const Handle half = half_type();
  const hid_t wanted = form == Form::f16  ? half.get()
                       : form == Form::i8 ? H5T_STD_I8LE
                                          : H5T_IEEE_F32LE;
  const bool plain =
      H5Pget_layout(properties.get()) == H5D_CONTIGUOUS && H5Tequal(type.get(), wanted) > 0;
  const haddr_t offset = plain ? H5Dget_offset(dataset.get()) : HADDR_UNDEF;
  return offset == HADDR_UNDEF ? 0 : offset;
}

hid_t memory_type(Form form, const Handle& half) {
  switch (form) {
    case Form::f16:
      return half.get();
    case Form::i8:
      return H5T_NATIVE_INT8;
    case Form::i64:
      return H5T_NATIVE_INT64;
    case Form::f64:
      return H5T_NATIVE_DOUBLE;
    case Form::f32:
      break;
  }
  return H5T_NATIVE_FLOAT;
}

/// Letters of a text attribute of fixed length.
std::string fixed_text(std::string letters, H5T_str_t padding) {
  letters.resize(std::min(letters.find('\0'), letters.size()));
  if (padding == H5T_STR_SPACEPAD) letters.resize(letters.find_last_not_of(' ') + 1);
  return letters;
}

}  // namespace

Library::Library(const std::filesystem::path& file, std::string name, std::uint64_t size)
    : name_(std::move(name)), size_(size), file_(open_file(file, name_)) {}

std::string Library::where(const char* kind, const std::string& name) const {
  return fmt::format("{}: {} {}", name_, kind, name);
}

/// Whether the link exists. Throws Error(unsupported) when it leads out of the file.
bool Library::link_is_ours(const std::string& name) const {
  if (H5Lexists(file_.get(), name.c_str(), H5P_DEFAULT) <= 0) return false;
  H5L_info_t info{};
  if (H5Lget_info(file_.get(), name.c_str(), &info, H5P_DEFAULT) < 0) return false;
  if (info.type == H5L_TYPE_HARD || info.type == H5L_TYPE_SOFT) return true;
  fail(ErrorCode::unsupported,
       "{} is a link to another file: copy what it leads to into this one (h5repack, or h5py)",
       where("object", name));
}

bool Library::has(const std::string& name) {
  if (name == "/") return true;
  // HDF5 asks for one link at a time.
  for (std::size_t end = 0; end != std::string::npos;) {
    end = name.find('/', end + 1);
    if (!link_is_ours(name.substr(0, end))) return false;
  }
  return H5Oexists_by_name(file_.get(), name.c_str(), stay_inside(H5P_LINK_ACCESS).get()) > 0;
}

std::vector<std::string> Library::names(const std::string& group) {
  const auto failed = [&]() {
    fail(ErrorCode::corrupt, "{} cannot be read: {}", where("group", group), reason());
  };
  const Handle handle(H5Gopen2(file_.get(), group.c_str(), stay_inside(H5P_GROUP_ACCESS).get()),
                      H5Gclose);
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

Handle Library::open_dataset(const std::string& name) {
  if (!has(name)) fail(ErrorCode::corrupt, "{} is missing", where("dataset", name));
  Handle handle(H5Dopen2(file_.get(), name.c_str(), stay_inside(H5P_DATASET_ACCESS).get()),
                H5Dclose);
  if (!handle) fail(ErrorCode::corrupt, "{}: is no dataset: {}", where("dataset", name), reason());
  return handle;
}

Facts Library::dataset(const std::string& name, std::size_t rank) {
  const std::string here = where("dataset", name);
  const Handle dataset = open_dataset(name);
  const Handle type(H5Dget_type(dataset.get()), H5Tclose);
  const H5T_class_t kind = H5Tget_class(type.get());
  const std::size_t element = H5Tget_size(type.get());
  if ((kind != H5T_FLOAT && kind != H5T_INTEGER) || element == 0 || element > 8) {
    fail(ErrorCode::unsupported, "{}: elements must be floats or integers of up to 8 bytes", here);
  }
  const Handle space(H5Dget_space(dataset.get()), H5Sclose);
  const int found = H5Sget_simple_extent_ndims(space.get());
  if (found != static_cast<int>(rank)) {
    fail(ErrorCode::corrupt, "{}: {} dimensions, must be {}", here, found, rank);
  }
  std::array<hsize_t, 3> extents{};
  H5Sget_simple_extent_dims(space.get(), extents.data(), nullptr);
  Facts facts;
  facts.planes = rank == 3 ? extents[0] : 1;
  facts.rows = extents[rank - 2];
  facts.cols = extents[rank - 1];
  check_storage(dataset, here, facts, element, size_);
  facts.integers = kind == H5T_INTEGER;
  facts.wide = kind == H5T_FLOAT && element == 8;
  const bool byte = facts.integers && element == 1 && H5Tget_sign(type.get()) == H5T_SGN_2;
  const bool half = H5Tequal(type.get(), half_type().get()) > 0;
  facts.stored = half ? Form::f16 : byte ? Form::i8 : Form::f32;
  facts.offset = offset_in_place(dataset, type, facts.stored);
  return facts;
}

void Library::read(const std::string& name, std::uint64_t plane, std::uint64_t first,
                   std::uint64_t rows, Form form, std::span<std::byte> out) {
  const Handle dataset = open_dataset(name);
  const Handle space(H5Dget_space(dataset.get()), H5Sclose);
  const std::size_t cols = out.size() / rows / size_of(form);
  const std::array<hsize_t, 3> start = {plane, first, 0};
  const std::array<hsize_t, 3> size = {1, rows, cols};
  const auto skip = static_cast<std::size_t>(H5Sget_simple_extent_ndims(space.get()) == 3 ? 0 : 1);
  const Handle memory(H5Screate_simple(2, size.data() + 1, nullptr), H5Sclose);
  const Handle half = half_type();
  const bool done = H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, start.data() + skip, nullptr,
                                        size.data() + skip, nullptr) >= 0 &&
                    H5Dread(dataset.get(), memory_type(form, half), memory.get(), space.get(),
                            H5P_DEFAULT, out.data()) >= 0;
  if (!done) {
    fail(ErrorCode::corrupt, "{}: cannot be read: {}", where("dataset", name), reason());
  }
}

Handle Library::open_attribute(const std::string& object, const std::string& attribute) {
  const Handle access = stay_inside(H5P_LINK_ACCESS);
  if (!has(object) ||
      H5Aexists_by_name(file_.get(), object.c_str(), attribute.c_str(), access.get()) <= 0) {
    return {};
  }
  Handle handle(
      H5Aopen_by_name(file_.get(), object.c_str(), attribute.c_str(), H5P_DEFAULT, access.get()),
      H5Aclose);
  if (!handle) {
    fail(ErrorCode::corrupt, "{}: cannot be read: {}", where("attribute", attribute), reason());
  }
  const Handle space(H5Aget_space(handle.get()), H5Sclose);
  if (H5Sget_simple_extent_npoints(space.get()) != 1) {
    fail(ErrorCode::corrupt, "{}: must be a single value", where("attribute", attribute));
  }
  return handle;
}

std::optional<std::string> Library::text(const std::string& object, const std::string& attribute) {
  const Handle handle = open_attribute(object, attribute);
  if (!handle) return std::nullopt;
  const std::string here = where("attribute", attribute);
  const Handle type(H5Aget_type(handle.get()), H5Tclose);
  if (H5Tget_class(type.get()) != H5T_STRING) {
    fail(ErrorCode::corrupt, "{}: must be text", here);
  }
  const auto failed = [&]() { fail(ErrorCode::corrupt, "{}: cannot be read: {}", here, reason()); };
  if (H5Tis_variable_str(type.get()) > 0) {
    char* letters = nullptr;
    if (H5Aread(handle.get(), type.get(), static_cast<void*>(&letters)) < 0) failed();
    std::string value = letters == nullptr ? "" : letters;
    H5free_memory(letters);
    return value;
  }
  if (H5Tget_size(type.get()) > size_) {
    fail(ErrorCode::corrupt, "{}: {} bytes in a file of {}", here, H5Tget_size(type.get()), size_);
  }
  std::string value(H5Tget_size(type.get()), '\0');
  if (H5Aread(handle.get(), type.get(), value.data()) < 0) failed();
  return fixed_text(std::move(value), H5Tget_strpad(type.get()));
}

std::optional<double> Library::number(const std::string& object, const std::string& attribute) {
  const Handle handle = open_attribute(object, attribute);
  if (!handle) return std::nullopt;
  const Handle type(H5Aget_type(handle.get()), H5Tclose);
  const H5T_class_t kind = H5Tget_class(type.get());
  double value = 0;
  if ((kind != H5T_FLOAT && kind != H5T_INTEGER) ||
      H5Aread(handle.get(), H5T_NATIVE_DOUBLE, &value) < 0 || !std::isfinite(value)) {
    fail(ErrorCode::corrupt, "{}: must be a finite number", where("attribute", attribute));
  }
  return value;
}

}  // namespace keyseek::io::hdf5
