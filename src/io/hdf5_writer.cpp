/// Builds HDF5 files in memory and writes them as a whole.
#include "io/hdf5_writer.hpp"

#include <algorithm>
#include <cstdint>

#include "base/fail.hpp"

namespace keyseek::io::hdf5 {
namespace {

/// A file that lives in memory; `name` appears in errors only.
Handle create_file(const std::filesystem::path& name) {
  constexpr hsize_t kPage = 4096;
  constexpr std::size_t kGrowth = std::size_t{16} << 20;
  const Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  H5Pset_alignment(access.get(), kPage, kPage);
  H5Pset_fapl_core(access.get(), kGrowth, false);
  return {H5Fcreate(name.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access.get()), H5Fclose};
}

}  // namespace

Writer::Writer(const std::filesystem::path& target)
    : target_(target), file_(create_file(target_.target())) {
  if (!file_) fail_write("file");
}

void Writer::fail_write(const std::string& what) const {
  fail(ErrorCode::io, "cannot write {} of {}: {}", what, target_.target().string(), reason());
}

void Writer::write(const std::string& name, const std::vector<std::size_t>& extents,
                   Element element, const void* data) {
  const Handle half = half_type();
  const hid_t type = element == Element::f32   ? H5T_IEEE_F32LE
                     : element == Element::f16 ? half.get()
                     : element == Element::i8  ? H5T_STD_I8LE
                     : element == Element::i32 ? H5T_STD_I32LE
                                               : H5T_STD_U32LE;
  const std::vector<hsize_t> sizes(extents.begin(), extents.end());
  const Handle space(H5Screate_simple(static_cast<int>(sizes.size()), sizes.data(), nullptr),
                     H5Sclose);
  const Handle links(H5Pcreate(H5P_LINK_CREATE), H5Pclose);
  H5Pset_create_intermediate_group(links.get(), 1);
  const Handle properties(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  H5Pset_obj_track_times(properties.get(), false);
  const Handle dataset(H5Dcreate2(file_.get(), name.c_str(), type, space.get(), links.get(),
                                  properties.get(), H5P_DEFAULT),
                       H5Dclose);
  if (!dataset || H5Dwrite(dataset.get(), type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0) {
    fail_write(name);
  }
}

void Writer::set_attribute(const std::string& object, const std::string& attribute, hid_t file_type,
                           hid_t memory_type, const void* value) {
  const Handle space(H5Screate(H5S_SCALAR), H5Sclose);
  const Handle handle(H5Acreate_by_name(file_.get(), object.c_str(), attribute.c_str(), file_type,
                                        space.get(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
                      H5Aclose);
  if (!handle || H5Awrite(handle.get(), memory_type, value) < 0) fail_write(attribute);
}

void Writer::set(const std::string& object, const std::string& attribute,
                 const std::string& value) {
  // Of variable length, as h5py writes text: of fixed length, it would read bytes.
  const Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  H5Tset_size(type.get(), H5T_VARIABLE);
  H5Tset_cset(type.get(), H5T_CSET_UTF8);
  const char* const letters = value.c_str();
  set_attribute(object, attribute, type.get(), type.get(), static_cast<const void*>(&letters));
}

void Writer::set(const std::string& object, const std::string& attribute, double value) {
  set_attribute(object, attribute, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, &value);
}

void Writer::set(const std::string& object, const std::string& attribute, std::size_t value) {
  const auto whole = static_cast<std::int64_t>(value);
  set_attribute(object, attribute, H5T_STD_I64LE, H5T_NATIVE_INT64, &whole);
}

void Writer::commit() {
  void* image = nullptr;  // of the memory driver: where it keeps the pointer to its bytes
  if (H5Fflush(file_.get(), H5F_SCOPE_GLOBAL) < 0 ||
      H5Fget_vfd_handle(file_.get(), H5P_DEFAULT, &image) < 0) {
    fail_write("end");
  }
  const ssize_t size = H5Fget_file_image(file_.get(), nullptr, 0);
  if (size <= 0) fail_write("end");
  target_.write({*static_cast<const std::byte* const*>(image), static_cast<std::size_t>(size)});
  target_.commit();
}

}  // namespace keyseek::io::hdf5
