/// A regular file opened for reading, with its real size: what every reader checks
/// sizes against before it allocates anything.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

namespace keyseek {

class InputFile {
 public:
  /// Throws Error(io) when `path` cannot be opened or is not a regular file.
  explicit InputFile(const std::filesystem::path& path);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }
  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }
  [[nodiscard]] int descriptor() const noexcept { return descriptor_; }

  /// Fills `out` from `offset` on. Throws Error(io), or Error(corrupt) where the file ends early.
  void read_at(std::uint64_t offset, std::span<std::byte> out) const;

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
  std::uint64_t size_ = 0;
};

}  // namespace keyseek
