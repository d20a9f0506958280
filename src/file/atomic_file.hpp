/// A file that appears complete or not at all.
///
/// Bytes go to a temporary file in the target's directory; commit() syncs it, renames
/// it over the target and syncs the directory. Until then the old file stays as it is;
/// without commit() the temporary file is removed. A new file gets the permissions that the
/// umask leaves, one that replaces another keeps the old one's.
///
/// A process that is killed leaves at most a file named ".keyseek-*.tmp", which nothing reads. It
/// was locked while that process lived; the next save in the directory removes those that no
/// longer are.
///
///     AtomicFile file("head.ks");
///     file.write(bytes);
///     file.commit();
#pragma once

#include <sys/stat.h>

#include <cstddef>
#include <filesystem>
#include <optional>
#include <span>

namespace keyseek {

class AtomicFile {
 public:
  /// Throws Error(io) when no file can be made beside `target`, or when `target` is
  /// something other than a regular file. A symbolic link is followed.
  explicit AtomicFile(const std::filesystem::path& target);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  /// Appends. Throws Error(io) with the system's reason (disk full, quota, ...).
  void write(std::span<const std::byte> bytes);
  /// Makes the file durable and visible as the target. At most once. Throws Error(io); where only
  /// the directory could not be synced, the new file is there all the same, and the sentence says
  /// so.
  void commit();

  [[nodiscard]] const std::filesystem::path& target() const noexcept { return target_; }

 private:
  void create_temporary();
  void keep_permissions() const;

  std::filesystem::path target_;
  std::optional<struct ::stat> replaced_;  ///< the target as it was; none: there was none
  std::filesystem::path temporary_;
  int directory_ = -1;
  int descriptor_ = -1;
  bool committed_ = false;
};

}  // namespace keyseek
