#include "file/atomic_file.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>

#include "file/temporary_directory.hpp"

namespace {

std::atomic<bool> folders_cannot_be_synced = false;

}  // namespace

/// The system's, but for directories while the test says so.
extern "C" int fsync(int descriptor) {
  struct stat status {};
  if (folders_cannot_be_synced && ::fstat(descriptor, &status) == 0 && S_ISDIR(status.st_mode)) {
    errno = EIO;
    return -1;
  }
  return static_cast<int>(::syscall(SYS_fsync, descriptor));
}

namespace keyseek {
namespace {

using test::expect_error;
using test::read_bytes;
using test::TemporaryDirectory;

void save(const std::filesystem::path& path, const std::string& text) {
  AtomicFile file(path);
  file.write(std::as_bytes(std::span(text)));
  file.commit();
}

mode_t mode_of(const std::filesystem::path& path) {
  struct stat status {};
  EXPECT_EQ(::stat(path.c_str(), &status), 0);
  return status.st_mode & 07777;
}

/// A umask for as long as the object lives.
class Umask {
 public:
  explicit Umask(mode_t mask) : before_(::umask(mask)) {}
  ~Umask() { ::umask(before_); }
  Umask(const Umask&) = delete;
  Umask& operator=(const Umask&) = delete;

 private:
  mode_t before_;
};

TEST(AtomicFile, ANewFileHasWhatTheUmaskLeaves) {
  const TemporaryDirectory directory;
  for (const mode_t mask : {0022U, 0077U, 0002U, 0U}) {
    const Umask umask(mask);
    const auto path = directory / ("new" + std::to_string(mask));
    save(path, "text");
    EXPECT_EQ(mode_of(path), 0666U & ~mask);
  }
}

TEST(AtomicFile, AReplacedFileKeepsItsPermissions) {
  const TemporaryDirectory directory;
  const auto path = directory / "a";
  for (const mode_t mask : {0022U, 0077U}) {
    const Umask umask(mask);
    for (const mode_t mode : {0600U, 0640U, 0644U, 0664U, 0666U, 0755U, 0400U, 0444U}) {
      save(path, "old");
      ASSERT_EQ(::chmod(path.c_str(), mode), 0);
      save(path, "new");
      EXPECT_EQ(mode_of(path), mode) << mask;
    }
  }
}

TEST(AtomicFile, APrivateFileIsPrivateWhileItIsWritten) {
  const TemporaryDirectory directory;
  const auto path = directory / "a";
  save(path, "old");
  ASSERT_EQ(::chmod(path.c_str(), 0600), 0);
  const AtomicFile file(path);
  for (const std::string& name : directory.names())
    EXPECT_EQ(mode_of(directory / name), 0600U) << name;
  EXPECT_EQ(directory.names().size(), 2U);
}

TEST(AtomicFile, OwnerAndGroupStay) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root may give files away";
  const TemporaryDirectory directory;
  const auto path = directory / "a";
  save(path, "old");
  ASSERT_EQ(::chown(path.c_str(), 1234, 2345), 0);
  ASSERT_EQ(::chmod(path.c_str(), 0640), 0);
  save(path, "new");
  struct stat status {};
  ASSERT_EQ(::stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_uid, 1234U);
  EXPECT_EQ(status.st_gid, 2345U);
  EXPECT_EQ(status.st_mode & 07777U, 0640U);
}

/// A child that begins a save of `path`, says so, and waits to be killed.
pid_t begin_and_wait(const std::filesystem::path& path) {
  std::array<int, 2> ready{};
  EXPECT_EQ(::pipe(ready.data()), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    AtomicFile file(path);
    file.write(std::as_bytes(std::span<const char>("half")));
    (void)!::write(ready[1], "x", 1);
    for (;;) ::pause();
  }
  char byte = 0;
  EXPECT_EQ(::read(ready[0], &byte, 1), 1);
  ::close(ready[0]);
  ::close(ready[1]);
  return child;
}

void end(pid_t child) {
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
}

TEST(AtomicFile, WhatKilledSavesLeftGoesWithTheNextSave) {
  const TemporaryDirectory directory;
  const auto path = directory / "a.ks";
  for (int i = 0; i < 3; ++i) {
    end(begin_and_wait(path));
    EXPECT_EQ(directory.names().size(), 1U) << "saves that are killed pile up";
  }
  save(path, "text");
  EXPECT_EQ(directory.names(), std::vector<std::string>{"a.ks"});
}

TEST(AtomicFile, WhatIsBeingWrittenStays) {
  const TemporaryDirectory directory;
  const auto path = directory / "a.ks", other = directory / "b.ks";
  AtomicFile mine(other);
  const pid_t child = begin_and_wait(path);
  for (int i = 0; i < 3; ++i) save(path, "text");
  EXPECT_EQ(directory.names().size(), 3U);  // a.ks, the child's and mine
  mine.write(std::as_bytes(std::span<const char>("mine")));
  mine.commit();
  EXPECT_EQ(read_bytes(other).size(), 5U);
  end(child);
  save(path, "text");
  EXPECT_EQ(directory.names().size(), 2U);
}

TEST(AtomicFile, OnlyItsOwnTemporaryFilesAreRemoved) {
  const TemporaryDirectory directory;
  const std::vector<std::string> others = {
      ".keyseek-0123456789abcdef.tmp~", ".keyseek-0123456789ABCDEF.tmp", ".keyseek-0123.tmp",
      "keyseek-0123456789abcdef.tmp", ".keyseek-0123456789abcdeg.tmp"};
  for (const auto& name : others) test::write_bytes(directory / name, std::string("x"));
  // A directory, a link and a pipe of such a name are nothing that a save makes.
  std::filesystem::create_directory(directory / ".keyseek-1123456789abcdef.tmp");
  std::filesystem::create_symlink(others[0], directory / ".keyseek-2123456789abcdef.tmp");
  ASSERT_EQ(::mkfifo((directory / ".keyseek-3123456789abcdef.tmp").c_str(), 0600), 0);
  test::write_bytes(directory / ".keyseek-4123456789abcdef.tmp", std::string("x"));
  save(directory / "a.ks", "text");
  EXPECT_EQ(directory.names().size(), others.size() + 3 + 1);
  for (const auto& name : others) EXPECT_EQ(read_bytes(directory / name).size(), 1U) << name;
}

TEST(AtomicFile, AFolderThatCannotBeSyncedIsSaidAsItIs) {
  const TemporaryDirectory directory;
  const auto path = directory / "a.ks";
  save(path, "old");
  folders_cannot_be_synced = true;
  expect_error(ErrorCode::io, {path.string(), "is written", "cannot be synced", "Input/output"},
               [&] { save(path, "the new one"); });
  folders_cannot_be_synced = false;
  EXPECT_EQ(read_bytes(path).size(), 11U);
  EXPECT_EQ(directory.names(), std::vector<std::string>{"a.ks"});
}

}  // namespace
}  // namespace keyseek
