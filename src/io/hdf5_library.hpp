/// An HDF5 file taken apart by libhdf5 in this process.
///
/// libhdf5 crashes or hangs on files that were damaged on purpose. What can be refused before it
/// looks closely is: links to other files, elements in other files, filters that it would have to
/// load, types that are no numbers.
#pragma once

#include <filesystem>

#include "io/hdf5.hpp"
#include "io/hdf5_backend.hpp"

namespace keyseek::io::hdf5 {

/// Keeps other threads out of libhdf5 while it lives.
class Library final : public Backend {
 public:
  /// `file` is what is opened, `name` what errors call it, `size` its real size.
  Library(const std::filesystem::path& file, std::string name, std::uint64_t size);

  bool has(const std::string& name) override;
  std::vector<std::string> names(const std::string& group) override;
  Facts dataset(const std::string& name, std::size_t rank) override;
  void read(const std::string& name, std::uint64_t plane, std::uint64_t first, std::uint64_t rows,
            Form form, std::span<std::byte> out) override;
  std::optional<std::string> text(const std::string& object, const std::string& attribute) override;
  std::optional<double> number(const std::string& object, const std::string& attribute) override;

 private:
  [[nodiscard]] std::string where(const char* kind, const std::string& name) const;
  [[nodiscard]] Handle open_dataset(const std::string& name);
  [[nodiscard]] Handle open_attribute(const std::string& object, const std::string& attribute);
  [[nodiscard]] bool link_is_ours(const std::string& name) const;

  std::string name_;
  std::uint64_t size_;
  Session session_;
  Handle file_;
};

}  // namespace keyseek::io::hdf5
