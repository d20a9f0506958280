#include "file/atomic_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <random>
#include <string>

#include "file/os_error.hpp"

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

/// O_EXCL settles what chance does not.
std::string temporary_name() {
  std::random_device random;
  return fmt::format(".keyseek-{:08x}{:08x}.tmp", random(), random());
}

}  // namespace

AtomicFile::AtomicFile(const std::filesystem::path& target) : target_(resolved(target)) {
  const auto parent = target_.has_parent_path() ? target_.parent_path() : ".";
  // Opened first: a directory that cannot be synced is found out before any work.
  directory_ = ::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory_ < 0) fail_io("write", target_);
  create_temporary();
}

void AtomicFile::create_temporary() {
  for (int attempt = 0; attempt < 16 && descriptor_ < 0; ++attempt) {
    temporary_ = target_.parent_path() / temporary_name();
    descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (descriptor_ < 0 && errno != EEXIST) break;
  }
  if (descriptor_ < 0) {
    const int error = errno;
    ::close(directory_);
    fail_io("write", target_, error);
  }
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
  if (::fsync(descriptor_) != 0) fail_io("write", target_);
  if (::rename(temporary_.c_str(), target_.c_str()) != 0) fail_io("write", target_);
  committed_ = true;
  // Some file systems cannot sync a directory and say EINVAL; there is nothing more to do there.
  if (::fsync(directory_) != 0 && errno != EINVAL) fail_io("sync the directory of", target_);
}

}  // namespace keyseek
