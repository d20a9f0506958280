/// A new HDF5 file that appears complete or not at all.
///
/// Datasets are contiguous and start at a page, so that they can be mapped; no times are
/// recorded, so that the same content gives the same bytes. HDF5 builds the file in memory:
/// after a write that failed (disk full), version 1.10 crashes when the process ends.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include "file/atomic_file.hpp"
#include "io/hdf5.hpp"

namespace keyseek::io::hdf5 {

/// Types of elements in memory and in the file.
enum class Element { f32, f16, i8, i32, u32 };

/// A file being written; keeps other threads out of HDF5 while it lives.
class Writer {
 public:
  explicit Writer(const std::filesystem::path& target);

  /// `name` may lie in groups ("L2/K0/keys"), which are made.
  void write(const std::string& name, const std::vector<std::size_t>& extents, Element element,
             const void* data);
  /// Attributes of `object` ("/" is the file's root).
  void set(const std::string& object, const std::string& attribute, const std::string& value);
  void set(const std::string& object, const std::string& attribute, double value);
  void set(const std::string& object, const std::string& attribute, std::size_t value);

  void commit();

 private:
  void set_attribute(const std::string& object, const std::string& attribute, hid_t file_type,
                     hid_t memory_type, const void* value);
  [[noreturn]] void fail_write(const std::string& what) const;

  AtomicFile target_;
  Session session_;
  Handle file_;
};

}  // namespace keyseek::io::hdf5
