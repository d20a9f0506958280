/// Starts the helper process that takes HDF5 files apart, and reads its answers.
#include "io/hdf5_helper.hpp"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <csignal>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "base/fail.hpp"
#include "file/os_error.hpp"

extern char** environ;  // NOLINT(readability-redundant-declaration): POSIX has it in no header

namespace keyseek::io::hdf5 {
namespace {

/// A file that needs more is better read in this process, as one that is trusted.
constexpr std::uint64_t kLeastMemory = std::uint64_t{4} << 30U;
constexpr std::uint64_t kMemoryPerByte = 4;
/// Slower than this no file is unpacked.
constexpr double kBytesPerSecond = 10e6;

/// Out of the way of the numbers that the helper expects its own at.
int moved_up(int descriptor) {
  constexpr int kAbove = 16;
  const int moved = ::fcntl(descriptor, F_DUPFD_CLOEXEC, kAbove);
  ::close(descriptor);
  return moved;
}

/// posix_spawn's actions: three descriptors, and nothing to read from or write to.
class Actions {
 public:
  Actions(int file, int socket, int memory) {
    posix_spawn_file_actions_init(&actions_);
    posix_spawn_file_actions_addopen(&actions_, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions_, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&actions_, 2, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_adddup2(&actions_, file, kHelperFile);
    posix_spawn_file_actions_adddup2(&actions_, socket, kHelperSocket);
    posix_spawn_file_actions_adddup2(&actions_, memory, kHelperMemory);
  }
  ~Actions() { posix_spawn_file_actions_destroy(&actions_); }
  Actions(const Actions&) = delete;
  Actions& operator=(const Actions&) = delete;
  [[nodiscard]] const posix_spawn_file_actions_t* get() const { return &actions_; }

 private:
  posix_spawn_file_actions_t actions_{};
};

}  // namespace

Helper::Helper(const InputFile& file, const Hdf5Access& access) : file_(file), access_(access) {
  require(access.seconds > 0, "access.seconds is {}, must be above 0", access.seconds);
  if (access_.memory == 0) access_.memory = kLeastMemory + kMemoryPerByte * file.size();
  try {
    start(access_.memory);
    (void)ask(Message().put(Ask::open));
  } catch (...) {
    end();
    throw;
  }
}

Helper::~Helper() { end(); }

void Helper::start(std::uint64_t memory) {
  std::array<int, 2> sockets = {-1, -1};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets.data()) != 0)
    fail_io("read", file_.path());
  socket_ = sockets[0];
  const int theirs = moved_up(sockets[1]);
  memory_ = moved_up(::memfd_create("keyseek-hdf5", MFD_CLOEXEC));
  const int file = ::fcntl(file_.descriptor(), F_DUPFD_CLOEXEC, 16);
  int error = theirs < 0 || memory_ < 0 || file < 0 ? errno : 0;
  if (error == 0) {
    const Actions actions(file, theirs, memory_);
    std::string program = access_.helper.string(), word(kHdf5HelperWord),
                name = file_.path().string(), most = std::to_string(memory);
    const std::array<char*, 5> words = {program.data(), word.data(), name.data(), most.data(),
                                        nullptr};
    error =
        ::posix_spawn(&process_, program.c_str(), actions.get(), nullptr, words.data(), environ);
  }
  ::close(theirs);
  ::close(file);
  if (error == 0) return;
  process_ = -1;
  fail_io("start the HDF5 helper", access_.helper, error);
}

void Helper::end() {
  if (socket_ >= 0) ::close(socket_);
  if (memory_ >= 0) ::close(memory_);
  if (process_ > 0) {
    ::kill(process_, SIGKILL);  // it has nothing to tidy up
    while (::waitpid(process_, nullptr, 0) < 0 && errno == EINTR) continue;
  }
  socket_ = memory_ = -1;
  process_ = -1;
}

void Helper::fail_ended() {
  int status = 0;
  pid_t ended = -1;
  while ((ended = ::waitpid(process_, &status, 0)) < 0 && errno == EINTR) continue;
  if (ended > 0) process_ = -1;
  const std::string path = file_.path().string();
  if (ended > 0 && WIFEXITED(status)) {
    fail(ErrorCode::io, "cannot read {}: the HDF5 helper {} ended with exit code {}", path,
         access_.helper.string(), WEXITSTATUS(status));
  }
  const std::string how =
      ended > 0 ? fmt::format("signal {}, {}", WTERMSIG(status), ::strsignal(WTERMSIG(status)))
                : "it is gone";
  fail(ErrorCode::corrupt, "{}: libhdf5 crashed while reading it ({}): the file is damaged", path,
       how);
}

void Helper::fail_late(double seconds) {
  fail(
      ErrorCode::corrupt,
      "{}: libhdf5 gave no answer within {:g} s: the file is damaged, or so large or far away that "
      "it needs more time; if you trust it, read it without a helper",
      file_.path().string(), seconds);
}

void Helper::receive(char* out, std::size_t size, double seconds) {
  using Clock = std::chrono::steady_clock;
  const auto until = Clock::now() + std::chrono::duration<double>(seconds);
  while (size > 0) {
    const double left = std::chrono::duration<double>(until - Clock::now()).count();
    pollfd wait{socket_, POLLIN, 0};
    const int ready =
        left <= 0 ? 0 : ::poll(&wait, 1, static_cast<int>(std::min(left, 1e6) * 1e3) + 1);
    if (ready < 0 && errno == EINTR) continue;
    if (ready == 0) fail_late(seconds);
    const ssize_t got = ::recv(socket_, out, size, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) fail_ended();
    out += got;
    size -= static_cast<std::size_t>(got);
  }
}

Message Helper::ask(const Message& question, double extra) {
  const std::uint64_t length = question.bytes().size();
  const std::string frame = Message().put(length).bytes() + question.bytes();
  for (std::size_t sent = 0; sent < frame.size();) {
    const ssize_t put = ::send(socket_, frame.data() + sent, frame.size() - sent, MSG_NOSIGNAL);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) fail_ended();
    sent += static_cast<std::size_t>(put);
  }
  std::uint64_t size = 0;
  receive(reinterpret_cast<char*>(&size), sizeof size, access_.seconds + extra);
  if (size > kLongestMessage)
    fail(ErrorCode::corrupt, "{}: an answer of {} bytes about it", file_.path().string(), size);
  std::string bytes(size, '\0');
  receive(bytes.data(), size, access_.seconds);
  Message answer(std::move(bytes));
  if (answer.take<bool>()) return answer;
  const auto code = std::min(answer.take<ErrorCode>(), ErrorCode::cancelled);
  throw Error(code, answer.take_text());
}

bool Helper::has(const std::string& name) {
  return ask(Message().put(Ask::has).put_text(name)).take<bool>();
}

std::vector<std::string> Helper::names(const std::string& group) {
  Message answer = ask(Message().put(Ask::names).put_text(group));
  std::vector<std::string> found;
  for (auto left = answer.take<std::uint64_t>(); left > 0; --left) {
    found.push_back(answer.take_text());
  }
  return found;
}

Facts Helper::dataset(const std::string& name, std::size_t rank) {
  Message answer = ask(Message().put(Ask::dataset).put_text(name).put<std::uint64_t>(rank));
  Facts facts;
  facts.planes = answer.take<std::uint64_t>();
  facts.rows = answer.take<std::uint64_t>();
  facts.cols = answer.take<std::uint64_t>();
  facts.stored = std::min(answer.take<Form>(), Form::i8);
  facts.integers = answer.take<std::uint8_t>() != 0;
  facts.wide = answer.take<std::uint8_t>() != 0;
  facts.offset = answer.take<std::uint64_t>();
  return facts;
}

void Helper::read(const std::string& name, std::uint64_t plane, std::uint64_t first,
                  std::uint64_t rows, Form form, std::span<std::byte> out) {
  (void)ask(Message()
                .put(Ask::read)
                .put_text(name)
                .put(plane)
                .put(first)
                .put(rows)
                .put(form)
                .put<std::uint64_t>(out.size()),
            static_cast<double>(out.size()) / kBytesPerSecond);
  // Read, not mapped: a helper that a crafted file took over could shorten the memory under a
  // mapping.
  for (std::size_t done = 0; done < out.size();) {
    const ssize_t got =
        ::pread(memory_, out.data() + done, out.size() - done, static_cast<off_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0)
      fail(ErrorCode::corrupt, "{}: dataset {} breaks off", file_.path().string(), name);
    done += static_cast<std::size_t>(got);
  }
}

std::optional<std::string> Helper::text(const std::string& object, const std::string& attribute) {
  Message answer = ask(Message().put(Ask::text).put_text(object).put_text(attribute));
  if (!answer.take<bool>()) return std::nullopt;
  return answer.take_text();
}

std::optional<double> Helper::number(const std::string& object, const std::string& attribute) {
  Message answer = ask(Message().put(Ask::number).put_text(object).put_text(attribute));
  if (!answer.take<bool>()) return std::nullopt;
  return answer.take<double>();
}

}  // namespace keyseek::io::hdf5
