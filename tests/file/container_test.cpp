#include "file/container.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <numeric>

#include "file/container_layout.hpp"
#include "file/temporary_directory.hpp"

namespace keyseek {
namespace {

using test::Bytes;
using test::expect_error;
using test::read_bytes;
using test::TemporaryDirectory;
using test::write_bytes;

/// Kind "test": five numbers, nothing, a text.
void save_small(const std::filesystem::path& path, const std::string& text = "k = 100") {
  const std::vector<float> numbers = {1, 2, 3, 4, 5};
  ContainerWriter writer("test");
  writer.add("numbers", std::as_bytes(std::span(numbers)));
  writer.add("nothing", {});
  writer.add_text("text", text);
  writer.save(path);
}

/// Whatever a user could open the file with.
void open_every_way(const std::filesystem::path& path, ErrorCode code,
                    const std::vector<std::string>& parts) {
  expect_error(code, parts, [&] { (void)ContainerReader::load(path); });
  expect_error(code, parts, [&] { (void)ContainerReader::map(path); });
}

bool opens(const std::filesystem::path& path) {
  try {
    (void)ContainerReader::load(path);
    return true;
  } catch (const Error&) {
    return false;
  }
}

/// Rewrites the header's checksum, as a careful attacker would.
void seal(Bytes& bytes) {
  container::Header header;
  std::memcpy(&header, bytes.data(), sizeof header);
  std::vector<container::Entry> table(header.sections);
  std::memcpy(table.data(), bytes.data() + sizeof header, table.size() * sizeof(container::Entry));
  header.checksum = container::header_checksum(header, table);
  std::memcpy(bytes.data(), &header, sizeof header);
}

TEST(Container, RoundTrip) {
  const TemporaryDirectory directory;
  const auto path = directory / "a.ks";
  save_small(path);
  EXPECT_EQ(ContainerReader::peek_kind(path), "test");
  for (const auto& reader : {ContainerReader::load(path), ContainerReader::map(path)}) {
    EXPECT_EQ(reader.kind(), "test");
    EXPECT_TRUE(reader.has("numbers"));
    EXPECT_FALSE(reader.has("number"));
    const auto numbers = reader.array<float>("numbers");
    ASSERT_EQ(numbers.size(), 5U);
    EXPECT_EQ(numbers[4], 5.0F);
    EXPECT_TRUE(reader.array<double>("nothing").empty());
    EXPECT_EQ(reader.text("text"), "k = 100");
  }
  EXPECT_EQ(directory.names(), std::vector<std::string>{"a.ks"});
}

TEST(Container, NoSectionsIsAFile) {
  const TemporaryDirectory directory;
  ContainerWriter("empty").save(directory / "a.ks");
  EXPECT_EQ(ContainerReader::load(directory / "a.ks").kind(), "empty");
  EXPECT_EQ(std::filesystem::file_size(directory / "a.ks"), sizeof(container::Header));
}

TEST(Container, ArraysOutliveTheReaderAndTheFile) {
  const TemporaryDirectory directory;
  const auto path = directory / "a.ks";
  save_small(path);
  auto loaded = ContainerReader::load(path).array<float>("numbers");
  auto mapped = ContainerReader::map(path).array<float>("numbers");
  std::filesystem::remove(path);
  EXPECT_EQ(loaded[2], 3.0F);
  EXPECT_EQ(mapped[2], 3.0F);
}

TEST(Container, SectionsAreAlignedInFileAndMemory) {
  const TemporaryDirectory directory;
  const auto path = directory / "a.ks";
  const std::vector<std::byte> large(container::kLarge + 3, std::byte{7});
  ContainerWriter writer("test");
  writer.add_text("small", "x");
  writer.add("large", large);
  writer.add_text("last", "y");
  writer.save(path);
  const std::size_t pages = (64 + 3 * 48 + 1 + 4095) / 4096;
  EXPECT_EQ(read_bytes(path)[pages * 4096], 7);
  for (const auto& reader : {ContainerReader::load(path), ContainerReader::map(path)}) {
    const auto bytes = reader.array<std::byte>("large");
    EXPECT_EQ(bytes.size(), large.size());
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(bytes.data()) % 4096, 0U);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(reader.array<char>("last").data()) % 64, 0U);
  }
}

TEST(Container, SavesTheSameBytes) {
  const TemporaryDirectory directory;
  save_small(directory / "a.ks");
  save_small(directory / "b.ks");
  EXPECT_EQ(read_bytes(directory / "a.ks"), read_bytes(directory / "b.ks"));
}

TEST(Container, EveryTruncationIsDetected) {
  const TemporaryDirectory directory;
  save_small(directory / "a.ks");
  const auto bytes = read_bytes(directory / "a.ks");
  const auto cut = directory / "cut.ks";
  for (std::size_t length = 0; length < bytes.size(); ++length) {
    write_bytes(cut, std::span(bytes).first(length));
    open_every_way(cut, ErrorCode::corrupt, {cut.string()});
    expect_error(ErrorCode::corrupt, {}, [&] { (void)ContainerReader::peek_kind(cut); });
  }
}

TEST(Container, EveryChangedByteIsDetected) {
  const TemporaryDirectory directory;
  save_small(directory / "a.ks");
  const auto bytes = read_bytes(directory / "a.ks");
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    for (const int flip : {0x01, 0x80, 0xff}) {
      auto changed = bytes;
      changed[i] = static_cast<char>(changed[i] ^ flip);
      write_bytes(directory / "changed.ks", changed);
      EXPECT_FALSE(opens(directory / "changed.ks")) << "byte " << i << " ^ " << flip;
    }
  }
}

TEST(Container, LongerFileIsDetected) {
  const TemporaryDirectory directory;
  save_small(directory / "a.ks");
  auto bytes = read_bytes(directory / "a.ks");
  bytes.push_back(0);
  write_bytes(directory / "a.ks", bytes);
  open_every_way(directory / "a.ks", ErrorCode::corrupt, {"the header says"});
}

TEST(Container, NewerVersionIsUnsupported) {
  const TemporaryDirectory directory;
  save_small(directory / "a.ks");
  auto bytes = read_bytes(directory / "a.ks");
  bytes[8] = 9;
  write_bytes(directory / "a.ks", bytes);
  open_every_way(directory / "a.ks", ErrorCode::unsupported, {"version 9", "up to version 1"});
}

TEST(Container, SealedLiesAreDetected) {
  const TemporaryDirectory directory;
  const auto path = directory / "a.ks";
  save_small(path);
  const auto bytes = read_bytes(path);
  constexpr std::size_t kFirstEntry = 64;
  constexpr std::size_t kOffset = kFirstEntry + 24, kSize = kOffset + 8;
  const auto lie = [&](std::size_t at, std::uint64_t value, std::size_t width,
                       const std::string& part) {
    auto changed = bytes;
    std::memcpy(changed.data() + at, &value, width);
    seal(changed);
    write_bytes(path, changed);
    open_every_way(path, ErrorCode::corrupt, {part});
  };
  lie(kOffset, 0, 8, "'numbers' is at 0");                     // over the header
  lie(kOffset, 320, 8, "'numbers' is at 320");                 // over the text
  lie(kOffset, 257, 8, "'numbers' is at 257");                 // not aligned
  lie(kOffset, ~std::uint64_t{0} - 63, 8, "'numbers' is at");  // offset + size overflows
  lie(kSize, ~std::uint64_t{0}, 8, "'numbers' has");           // larger than the file
  lie(kSize, 1 << 10, 8, "'numbers' has");
  lie(kSize, 24, 8, "checksum of section 'numbers'");                 // takes padding for a number
  lie(kFirstEntry + 48, 0x737265626d756e, 8, "are named 'numbers'");  // "numbers" again
  lie(kFirstEntry, 'n' + 256 * '\n', 2, "name of section 0");
  lie(kFirstEntry + 20, 'x', 1, "name of section 0");  // text behind the padding
  lie(16, ' ', 1, "kind is not");
  lie(44, 1, 1, "reserved");
}

TEST(Container, ForeignAndMissingFiles) {
  const TemporaryDirectory directory;
  const auto path = directory / "a.ks";
  open_every_way(path, ErrorCode::io, {path.string(), "No such file"});
  write_bytes(path, {});
  open_every_way(path, ErrorCode::corrupt, {path.string()});
  const std::string foreign =
      "\x89HDF\r\n\x1a\n and so on, for more bytes than a header would need.";
  write_bytes(path, foreign);
  open_every_way(path, ErrorCode::corrupt, {"not a keyseek file"});
  open_every_way(directory.path(), ErrorCode::io, {"a directory"});
  ASSERT_EQ(::mkfifo((directory / "pipe").c_str(), 0600), 0);
  open_every_way(directory / "pipe", ErrorCode::io, {"pipe"});
}

TEST(Container, AForeignFileIsNotReadToItsEnd) {
  const TemporaryDirectory directory;
  const auto path = directory / "large.ks";
  save_small(path);
  const auto kind = ContainerReader::peek_kind(path);
  // A sparse file of a terabyte: neither its memory nor its time can be had.
  std::filesystem::resize_file(path, std::uintmax_t{1} << 40U);
  open_every_way(path, ErrorCode::corrupt, {"the header says"});
  write_bytes(path, {});
  std::filesystem::resize_file(path, std::uintmax_t{1} << 40U);
  open_every_way(path, ErrorCode::corrupt, {"not a keyseek file"});
  save_small(path);
  expect_error(ErrorCode::corrupt, {"\"test\"", "\"flat\""},
               [&] { (void)ContainerReader::load(path, "flat"); });
  EXPECT_EQ(ContainerReader::map(path, kind).kind(), kind);
}

TEST(Container, SectionsThatAreNotWhatIsAsked) {
  const TemporaryDirectory directory;
  save_small(directory / "a.ks");
  const auto reader = ContainerReader::load(directory / "a.ks");
  expect_error(ErrorCode::corrupt, {"'numbers' has 20 bytes", "multiple of 8"},
               [&] { (void)reader.array<double>("numbers"); });
  expect_error(ErrorCode::corrupt, {"'graph' is missing"},
               [&] { (void)reader.array<float>("graph"); });
}

TEST(ContainerWriter, RefusesWrongNames) {
  const auto refuses = [](const std::string& part, auto body) {
    expect_error(ErrorCode::invalid_argument, {part}, body);
  };
  refuses("kind is ''", [] { ContainerWriter(""); });
  refuses("12345678901234567", [] { ContainerWriter("12345678901234567"); });
  ContainerWriter writer("test");
  refuses("two words", [&] { writer.add("two words", {}); });
  refuses("1 to 24", [&] { writer.add(std::string(25, 'n'), {}); });
  writer.add(std::string(24, 'n'), {});
  refuses("twice", [&] { writer.add(std::string(24, 'n'), {}); });
}

TEST(ContainerWriter, LongestNamesRoundTrip) {
  const TemporaryDirectory directory;
  ContainerWriter writer(std::string(16, 'k'));
  writer.add_text(std::string(24, 'n'), "found");
  writer.save(directory / "a.ks");
  const auto reader = ContainerReader::map(directory / "a.ks");
  EXPECT_EQ(reader.kind(), std::string(16, 'k'));
  EXPECT_EQ(reader.text(std::string(24, 'n')), "found");
}

TEST(ContainerSave, ReplacesTheOldFileWhileItIsMapped) {
  const TemporaryDirectory directory;
  const auto path = directory / "a.ks";
  save_small(path, "old");
  const auto old = ContainerReader::map(path);
  save_small(path, "new");
  EXPECT_EQ(old.text("text"), "old");
  EXPECT_EQ(ContainerReader::map(path).text("text"), "new");
}

TEST(ContainerSave, FollowsALink) {
  const TemporaryDirectory directory;
  save_small(directory / "real.ks", "old");
  std::filesystem::create_symlink("real.ks", directory / "link.ks");
  save_small(directory / "link.ks", "new");
  EXPECT_TRUE(std::filesystem::is_symlink(directory / "link.ks"));
  EXPECT_EQ(ContainerReader::load(directory / "real.ks").text("text"), "new");
}

TEST(ContainerSave, RefusedTargetsLeaveNothingBehind) {
  const TemporaryDirectory directory;
  std::filesystem::create_directory(directory / "taken");
  const auto refuses = [](const std::filesystem::path& path, const std::string& part) {
    expect_error(ErrorCode::io, {path.string(), part}, [&] { save_small(path); });
  };
  refuses(directory / "taken", "a directory");
  refuses(directory / "absent/a.ks", "No such file");
  refuses("/dev/null", "device");
  EXPECT_EQ(directory.names(), std::vector<std::string>{"taken"});
}

/// Runs `body` in a child that may change its limits and its user; true when it returned true.
template <class Body>
bool in_child(Body body) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(body() ? 0 : 1);
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

bool save_fails(const std::filesystem::path& path, const std::string& part) {
  try {
    save_small(path, "new");
  } catch (const Error& error) {
    const std::string sentence = error.what();
    return error.code() == ErrorCode::io && sentence.find(path.string()) != std::string::npos &&
           sentence.find(part) != std::string::npos;
  }
  return false;
}

TEST(ContainerSave, FullDiskLeavesTheOldFile) {
  const TemporaryDirectory directory;
  const auto path = directory / "a.ks";
  save_small(path, "old");
  EXPECT_TRUE(in_child([&] {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{100, 100};
    return ::setrlimit(RLIMIT_FSIZE, &limit) == 0 && save_fails(path, "File too large");
  }));
  EXPECT_EQ(ContainerReader::load(path).text("text"), "old");
  EXPECT_EQ(directory.names(), std::vector<std::string>{"a.ks"});
}

TEST(ContainerSave, NoPermissionLeavesTheOldFile) {
  const TemporaryDirectory directory;
  const auto path = directory / "a.ks";
  save_small(path, "old");
  ::chmod(directory.path().c_str(), 0555);
  EXPECT_TRUE(in_child([&] {
    constexpr uid_t kNobody = 65534;
    const bool dropped = ::getuid() != 0 || ::setuid(kNobody) == 0;
    return dropped && save_fails(path, "Permission denied");
  }));
  ::chmod(directory.path().c_str(), 0755);
  EXPECT_EQ(ContainerReader::load(path).text("text"), "old");
}

TEST(ContainerSave, KilledWhileWritingLeavesTheOldFile) {
  const TemporaryDirectory directory;
  const auto path = directory / "a.ks";
  save_small(path, "old");
  // The limit's signal kills the child in the middle of its temporary file.
  EXPECT_FALSE(in_child([&] {
    const rlimit no_core{0, 0};
    const rlimit limit{100, 100};
    ::setrlimit(RLIMIT_CORE, &no_core);
    ::setrlimit(RLIMIT_FSIZE, &limit);
    std::signal(SIGXFSZ, SIG_DFL);
    save_small(path, "new");
    return true;
  }));
  EXPECT_EQ(directory.names().size(), 2U);  // the leftover
  EXPECT_EQ(ContainerReader::load(path).text("text"), "old");
  save_small(path, "new");
  EXPECT_EQ(ContainerReader::load(path).text("text"), "new");
}

}  // namespace
}  // namespace keyseek
