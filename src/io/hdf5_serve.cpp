// The helper's side: answers what `Helper` asks, until nobody asks any more.
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include <csignal>

#include <cerrno>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <string_view>

#include "base/fail.hpp"
#include "file/input_file.hpp"
#include "io/hdf5_library.hpp"
#include "io/hdf5_message.hpp"
#include "keyseek/io.hpp"

namespace keyseek::io {
namespace hdf5 {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kLimited = false;  // their shadow memory is larger than any limit
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
constexpr bool kLimited = false;
#else
constexpr bool kLimited = true;
#endif
#else
constexpr bool kLimited = true;
#endif

/// Ends with the process that asks, leaves no core files, takes no more memory than allowed, and
/// loads no filters from elsewhere.
void restrict_this_process(std::uint64_t memory) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::signal(SIGINT, SIG_IGN);  // Ctrl-C is for the one who asks
  ::signal(SIGTERM, SIG_IGN);
  const rlimit none{0, 0}, most{memory, memory};
  ::setrlimit(RLIMIT_CORE, &none);
  if (kLimited) ::setrlimit(RLIMIT_AS, &most);
  H5PLset_loading_state(0);
}

/// False where the other side has gone.
bool receive(char* out, std::size_t size) {
  while (size > 0) {
    const ssize_t got = ::recv(kHelperSocket, out, size, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    out += got;
    size -= static_cast<std::size_t>(got);
  }
  return true;
}

bool send(const Message& message) {
  const std::string frame =
      Message().put<std::uint64_t>(message.bytes().size()).bytes() + message.bytes();
  for (std::size_t sent = 0; sent < frame.size();) {
    const ssize_t put =
        ::send(kHelperSocket, frame.data() + sent, frame.size() - sent, MSG_NOSIGNAL);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return false;
    sent += static_cast<std::size_t>(put);
  }
  return true;
}

/// Rows go straight into the memory that the other side reads.
void read_rows(Backend& file, Message& question) {
  const std::string name = question.take_text();
  const auto plane = question.take<std::uint64_t>(), first = question.take<std::uint64_t>(),
             rows = question.take<std::uint64_t>();
  const auto form = question.take<Form>();
  const auto size = question.take<std::uint64_t>();
  if (::ftruncate(kHelperMemory, static_cast<off_t>(size)) != 0) throw std::bad_alloc();
  void* const memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, kHelperMemory, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  const std::shared_ptr<void> unmap(memory, [size](void* p) { ::munmap(p, size); });
  file.read(name, plane, first, rows, form, {static_cast<std::byte*>(memory), size});
}

Message answer(Backend& file, Message& question) {
  Message out;
  out.put(true);
  switch (question.take<Ask>()) {
    case Ask::open:
      break;
    case Ask::has:
      out.put(file.has(question.take_text()));
      break;
    case Ask::names: {
      const auto names = file.names(question.take_text());
      out.put<std::uint64_t>(names.size());
      for (const std::string& name : names) out.put_text(name);
      break;
    }
    case Ask::dataset: {
      const std::string name = question.take_text();
      const Facts facts = file.dataset(name, question.take<std::uint64_t>());
      out.put(facts.planes).put(facts.rows).put(facts.cols).put(facts.stored);
      out.put<std::uint8_t>(facts.integers).put<std::uint8_t>(facts.wide).put(facts.offset);
      break;
    }
    case Ask::read:
      read_rows(file, question);
      break;
    case Ask::text: {
      const std::string object = question.take_text();
      const auto text = file.text(object, question.take_text());
      out.put(text.has_value()).put_text(text.value_or(""));
      break;
    }
    case Ask::number: {
      const std::string object = question.take_text();
      const auto number = file.number(object, question.take_text());
      out.put(number.has_value()).put(number.value_or(0));
      break;
    }
  }
  return out;
}

Message refusal(ErrorCode code, const std::string& sentence) {
  Message out;
  out.put(false).put(code).put_text(sentence);
  return out;
}

/// Opened with the first question, so that a file that cannot be opened is an answer.
Message answer_or_refuse(std::unique_ptr<Library>& file, const std::string& name,
                         std::uint64_t memory, Message& question) {
  try {
    const std::filesystem::path path = fmt::format("/proc/self/fd/{}", kHelperFile);
    if (!file) file = std::make_unique<Library>(path, name, InputFile(path).size());
    return answer(*file, question);
  } catch (const Error& e) {
    return refusal(e.code(), e.what());
  } catch (const std::bad_alloc&) {
    return refusal(ErrorCode::corrupt,
                   fmt::format("{}: reading it needs more than the {} bytes of memory that the "
                               "HDF5 helper may take: the file is damaged, or compressed so well "
                               "that it has to be read without a helper, if you trust it",
                               name, memory));
  }
}

}  // namespace
}  // namespace hdf5

int serve_hdf5(int argc, char** argv) {
  if (argc != 4 || argv[1] != kHdf5HelperWord) return 2;
  const std::string name = argv[2];
  const std::uint64_t memory = std::strtoull(argv[3], nullptr, 10);
  hdf5::restrict_this_process(memory);
  std::unique_ptr<hdf5::Library> file;
  for (;;) {
    std::uint64_t size = 0;
    if (!hdf5::receive(reinterpret_cast<char*>(&size), sizeof size)) return 0;
    std::string bytes(std::min(size, hdf5::kLongestMessage), '\0');
    if (!hdf5::receive(bytes.data(), bytes.size())) return 0;
    hdf5::Message question(std::move(bytes));
    if (!hdf5::send(hdf5::answer_or_refuse(file, name, memory, question))) return 0;
  }
}

}  // namespace keyseek::io
