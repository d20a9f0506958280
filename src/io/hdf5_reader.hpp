/// Matrices and attributes of an HDF5 file. Every fault is an Error that names the path,
/// the dataset or attribute, and the value.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "io/hdf5.hpp"
#include "io/shape.hpp"
#include "keyseek/matrix.hpp"

namespace keyseek::io::hdf5 {

/// A dataset of numbers with 2 dimensions (rows, columns) or 3 (planes of rows); its
/// extents are checked against what the file really holds. Must not outlive its Reader.
class Dataset {
 public:
  [[nodiscard]] const std::string& where() const noexcept { return where_; }  ///< for errors
  [[nodiscard]] std::uint64_t planes() const noexcept { return planes_; }  ///< 1 with 2 dimensions
  [[nodiscard]] std::uint64_t rows() const noexcept { return shape_.rows; }
  [[nodiscard]] std::uint64_t cols() const noexcept { return shape_.cols; }

  /// float16 and int8 as stored, every other type as f32.
  [[nodiscard]] AnyMatrix read(std::uint64_t plane = 0) const;
  [[nodiscard]] Matrix<float> read_floats(std::uint64_t plane = 0) const;
  /// -1 becomes kNoId; throws Error(corrupt) for what is no id.
  [[nodiscard]] Matrix<Id> read_ids() const;

 private:
  friend class Reader;
  Dataset(Handle dataset, std::string where, std::size_t rank, std::uint64_t file_size);
  void check_storage(std::uint64_t file_size) const;
  [[nodiscard]] Dtype stored_dtype() const;
  /// Rows [first, first + count) of a plane into `out`, converted to `memory_type`.
  void read_rows(std::uint64_t plane, std::uint64_t first, std::uint64_t count, hid_t memory_type,
                 void* out) const;

  Handle dataset_;
  Handle type_;
  std::string where_;
  std::size_t rank_;
  std::uint64_t planes_ = 1;
  Shape shape_;
};

/// An open file; keeps other threads out of HDF5 while it lives.
class Reader {
 public:
  /// Throws Error(io) when the file cannot be opened, Error(corrupt) when it is no HDF5 file.
  explicit Reader(const std::filesystem::path& path);

  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }
  /// Whether there is such a dataset or group, for example "L2/K0/keys".
  [[nodiscard]] bool has(const std::string& name) const;
  /// Names in a group, in alphabetical order.
  [[nodiscard]] std::vector<std::string> names(const std::string& group) const;
  [[nodiscard]] Dataset dataset(const std::string& name, std::size_t rank) const;

  /// Attributes of `object` ("/" is the file's root); none when absent.
  [[nodiscard]] std::optional<std::string> text(const std::string& object,
                                                const std::string& attribute) const;
  [[nodiscard]] std::optional<double> number(const std::string& object,
                                             const std::string& attribute) const;
  /// A whole number from 0 to 2^53.
  [[nodiscard]] std::optional<std::size_t> count(const std::string& object,
                                                 const std::string& attribute) const;

 private:
  [[nodiscard]] Handle open_attribute(const std::string& object,
                                      const std::string& attribute) const;
  [[nodiscard]] std::string where(const std::string& attribute) const;

  std::filesystem::path path_;
  std::uint64_t size_;
  Session session_;
  Handle file_;
};

}  // namespace keyseek::io::hdf5
