/// What is asked of an HDF5 file, whoever takes it apart: libhdf5 in this process (`Library`) or in
/// one of its own (`Helper`).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace keyseek::io::hdf5 {

/// Elements as they are read; libhdf5 converts other numbers to f32, integers to i64.
enum class Form : std::uint8_t { f32 = 0, f16 = 1, i8 = 2, i64 = 3, f64 = 4 };

[[nodiscard]] constexpr std::size_t size_of(Form form) noexcept {
  constexpr std::size_t kSizes[] = {4, 2, 1, 8, 8};
  return kSizes[static_cast<std::size_t>(form)];
}

/// A dataset of numbers whose extents were checked against what the file really holds.
struct Facts {
  std::uint64_t planes = 1, rows = 0, cols = 0;
  Form stored = Form::f32;  ///< f16 and i8 as they are; all else is read as f32
  bool integers = false;
  bool wide = false;  ///< f64: some values are beyond f32
  /// Where the elements lie in the file, in one piece and in the form `stored`; 0: they do not.
  std::uint64_t offset = 0;
};

/// Every fault is an Error that names the file, the dataset or attribute, and the value.
class Backend {
 public:
  Backend() = default;
  virtual ~Backend() = default;
  Backend(const Backend&) = delete;
  Backend& operator=(const Backend&) = delete;

  virtual bool has(const std::string& name) = 0;
  virtual std::vector<std::string> names(const std::string& group) = 0;
  virtual Facts dataset(const std::string& name, std::size_t rank) = 0;
  /// Rows [first, first + rows) of a plane; `out` has room for exactly them.
  virtual void read(const std::string& name, std::uint64_t plane, std::uint64_t first,
                    std::uint64_t rows, Form form, std::span<std::byte> out) = 0;
  virtual std::optional<std::string> text(const std::string& object,
                                          const std::string& attribute) = 0;
  virtual std::optional<double> number(const std::string& object, const std::string& attribute) = 0;
};

}  // namespace keyseek::io::hdf5
