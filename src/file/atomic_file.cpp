/// Writes a file beside its target, syncs it, and puts it in the target's place.
#include "file/atomic_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "file/os_error.hpp"
#include "file/temporary_file.hpp"

namespace keyseek {
namespace {

/// Links are followed, so that saving through one keeps it.
std::filesystem::path resolved(const std::filesystem::path& target) {
  require(target.has_filename(), "cannot write '{}': it names no file", target.string());
  struct stat status {};
  if (::stat(target.c_str(), &status) != 0) {
    if (errno != ENOENT) fail_io("write", target);
    return target;
  }
  if (!S_ISREG(status.st_mode)) {
    fail(ErrorCode::io, "cannot write {}: it is {}, not a file", target.string(),
         S_ISDIR(status.st_mode) ? "a directory" : "a device or pipe");
  }
  std::error_code error;
  auto real = std::filesystem::canonical(target, error);
  if (error) fail_io("write", target, error.value());
  return real;
}

constexpr mode_t kPermissions = 07777;

}  // namespace

AtomicFile::AtomicFile(const std::filesystem::path& target) : target_(resolved(target)) {
  const auto parent = target_.has_parent_path() ? target_.parent_path() : ".";
  remove_abandoned(parent);
  // Opened first: a directory that cannot be synced is found out before any work.
  directory_ = ::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory_ < 0) fail_io("write", target_);
  try {
    create_temporary();
  } catch (...) {
    ::close(directory_);
    throw;
  }
}

void AtomicFile::create_temporary() {
  struct stat status {};
  if (::stat(target_.c_str(), &status) == 0) replaced_ = status;
  // Never more open than the file it replaces, not even while it is written.
  const mode_t mode = replaced_ ? replaced_->st_mode & kPermissions : 0666;
  auto made = keyseek::create_temporary(target_.parent_path(), mode);
  if (made.descriptor < 0) fail_io("write", target_);
  temporary_ = std::move(made.path);
  descriptor_ = made.descriptor;
}

/// Owner and group are the old file's where the system allows it; then the permissions, which a
/// change of owner may shorten. Without the old group, its permissions are nobody's.
void AtomicFile::keep_permissions() const {
  if (!replaced_) return;
  struct stat made {};
  if (::fstat(descriptor_, &made) != 0) fail_io("write", target_);
  mode_t mode = replaced_->st_mode & kPermissions;
  const bool same = made.st_uid == replaced_->st_uid && made.st_gid == replaced_->st_gid;
  if (!same && ::fchown(descriptor_, replaced_->st_uid, replaced_->st_gid) != 0) {
    const bool group = ::fchown(descriptor_, static_cast<uid_t>(-1), replaced_->st_gid) == 0;
    mode &= group ? 01777U : 01707U;
  }
  // Some file systems know no permissions: all files have the same, and none can be changed.
  if ((made.st_mode & kPermissions) == mode && same) return;
  if (::fchmod(descriptor_, mode) != 0) fail_io("keep the permissions of", target_);
}

AtomicFile::~AtomicFile() {
  ::close(descriptor_);
  ::close(directory_);
  if (!committed_) ::unlink(temporary_.c_str());
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  constexpr std::size_t kLargestWrite = std::size_t{1} << 30;
  while (!bytes.empty()) {
    const ssize_t put = ::write(descriptor_, bytes.data(), std::min(bytes.size(), kLargestWrite));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) fail_io("write", target_);
    bytes = bytes.subspan(static_cast<std::size_t>(put));
  }
}

void AtomicFile::commit() {
  keep_permissions();
  if (::fsync(descriptor_) != 0) fail_io("write", target_);
  if (::rename(temporary_.c_str(), target_.c_str()) != 0) fail_io("write", target_);
  committed_ = true;
  // Some file systems cannot sync a directory and say EINVAL; there is nothing more to do there.
  if (::fsync(directory_) == 0 || errno == EINVAL) return;
  fail(ErrorCode::io,
       "{} is written, complete and in its place, but its directory cannot be synced ({}): after a "
       "crash of the machine the file that was there before may be back",
       target_.string(), std::generic_category().message(errno));
}

}  // namespace keyseek
