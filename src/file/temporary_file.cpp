/// Creates, locks and removes the temporary files of saves.
#include "file/temporary_file.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <random>
#include <string>
#include <string_view>

namespace keyseek {
namespace {

constexpr std::string_view kPrefix = ".keyseek-", kSuffix = ".tmp";
constexpr std::size_t kDigits = 16;

/// O_EXCL settles what chance does not.
std::string new_name() {
  std::random_device random;
  return fmt::format("{}{:08x}{:08x}{}", kPrefix, random(), random(), kSuffix);
}

bool is_ours(std::string_view name) {
  if (name.size() != kPrefix.size() + kDigits + kSuffix.size()) return false;
  if (!name.starts_with(kPrefix) || !name.ends_with(kSuffix)) return false;
  const auto digits = name.substr(kPrefix.size(), kDigits);
  return digits.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

/// Whether the file is held by this descriptor alone. Some file systems have no locks (EOPNOTSUPP
/// and the like): there nobody can take a file from its owner either.
bool locks(int descriptor) {
  struct flock whole {};
  whole.l_type = F_WRLCK;
  whole.l_whence = SEEK_SET;
  return ::fcntl(descriptor, F_OFD_SETLK, &whole) == 0;
}

/// Between its creation and its lock, another process may have taken the file for abandoned.
bool still_there(int descriptor) {
  struct stat status {};
  return ::fstat(descriptor, &status) == 0 && status.st_nlink > 0;
}

void remove_if_abandoned(const std::filesystem::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  if (descriptor < 0) return;
  struct stat status {};
  const bool file = ::fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode);
  if (file && locks(descriptor)) ::unlink(path.c_str());
  ::close(descriptor);
}

}  // namespace

TemporaryFile create_temporary(const std::filesystem::path& folder, mode_t mode) {
  constexpr int kAttempts = 16;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    // The name is made first: once there is a file, nothing may throw.
    TemporaryFile made{folder / new_name(), -1};
    made.descriptor = ::open(made.path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (made.descriptor < 0 && errno == EEXIST) continue;
    if (made.descriptor < 0) return made;
    const bool taken = !locks(made.descriptor) && (errno == EAGAIN || errno == EACCES);
    if (!taken && still_there(made.descriptor)) return made;
    ::close(made.descriptor);
  }
  errno = EEXIST;
  return {};
}

void remove_abandoned(const std::filesystem::path& folder) {
  // Not by std::filesystem, whose iterators end the process when memory runs out.
  const std::unique_ptr<DIR, int (*)(DIR*)> entries(
      ::opendir(folder.empty() ? "." : folder.c_str()), ::closedir);
  if (entries == nullptr) return;
  while (const dirent* const entry = ::readdir(entries.get())) {
    const std::string_view name = entry->d_name;
    if (is_ours(name)) remove_if_abandoned(folder / name);
  }
}

}  // namespace keyseek
