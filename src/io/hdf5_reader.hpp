/// Matrices and attributes of an HDF5 file. Every fault is an Error that names the path,
/// the dataset or attribute, and the value.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "file/input_file.hpp"
#include "io/hdf5_backend.hpp"
#include "io/shape.hpp"
#include "keyseek/io.hpp"
#include "keyseek/matrix.hpp"

namespace keyseek::io::hdf5 {

/// A dataset of numbers with 2 dimensions (rows, columns) or 3 (planes of rows); its
/// extents are checked against what the file really holds. Must not outlive its Reader.
class Dataset {
 public:
  [[nodiscard]] const std::string& where() const noexcept { return where_; }     ///< for errors
  [[nodiscard]] std::uint64_t planes() const noexcept { return facts_.planes; }  ///< or 1
  [[nodiscard]] std::uint64_t rows() const noexcept { return facts_.rows; }
  [[nodiscard]] std::uint64_t cols() const noexcept { return facts_.cols; }

  /// float16 and int8 as stored, every other type as f32. Throws Error(unsupported) for a finite
  /// f64 that f32 cannot hold.
  [[nodiscard]] AnyMatrix read(std::uint64_t plane = 0) const;
  [[nodiscard]] Matrix<float> read_floats(std::uint64_t plane = 0) const;
  /// -1 becomes kNoId; throws Error(corrupt) for what is no id.
  [[nodiscard]] Matrix<Id> read_ids() const;

 private:
  friend class Reader;
  Dataset(Backend& backend, const InputFile& file, std::string name, std::size_t rank);
  void read_plane(std::uint64_t plane, std::span<std::byte> out) const;
  void check_range(std::uint64_t plane, const float* values) const;

  Backend& backend_;
  const InputFile& file_;
  std::string name_, where_;
  Facts facts_;
};

/// An open file. Without a helper process it keeps other threads out of HDF5 while it lives.
class Reader {
 public:
  /// Throws Error(io) when the file cannot be opened, Error(corrupt) when it is no HDF5 file.
  explicit Reader(const std::filesystem::path& path, const Hdf5Access& access = {});

  [[nodiscard]] const std::filesystem::path& path() const noexcept { return file_.path(); }
  /// Whether there is such a dataset or group, for example "L2/K0/keys".
  [[nodiscard]] bool has(const std::string& name) const { return backend_->has(name); }
  /// Names in a group, in alphabetical order.
  [[nodiscard]] std::vector<std::string> names(const std::string& group) const {
    return backend_->names(group);
  }
  [[nodiscard]] Dataset dataset(const std::string& name, std::size_t rank) const {
    return {*backend_, file_, name, rank};
  }

  /// Attributes of `object` ("/" is the file's root); none when absent.
  [[nodiscard]] std::optional<std::string> text(const std::string& object,
                                                const std::string& attribute) const {
    return backend_->text(object, attribute);
  }
  [[nodiscard]] std::optional<double> number(const std::string& object,
                                             const std::string& attribute) const {
    return backend_->number(object, attribute);
  }
  /// A whole number from 0 to 2^53.
  [[nodiscard]] std::optional<std::size_t> count(const std::string& object,
                                                 const std::string& attribute) const;

 private:
  InputFile file_;
  std::unique_ptr<Backend> backend_;
};

}  // namespace keyseek::io::hdf5
