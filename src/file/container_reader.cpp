/// Maps a container and checks header, table and sections before anything is believed.
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

#include "base/fail.hpp"
#include "file/container.hpp"
#include "file/container_layout.hpp"
#include "file/input_file.hpp"
#include "file/os_error.hpp"

namespace keyseek {
namespace {

using container::Entry;
using container::Header;

template <class... Args>
[[noreturn]] void fail_corrupt(const std::filesystem::path& path,
                               fmt::format_string<Args...> format, Args&&... args) {
  fail(ErrorCode::corrupt, "{}: {}", path.string(),
       fmt::format(format, std::forward<Args>(args)...));
}

/// The text of a zero-padded field; empty when it is no valid label.
template <std::size_t N>
std::string label(const std::array<char, N>& field) {
  const auto end = std::find(field.begin(), field.end(), '\0');
  const std::string text(field.begin(), end);
  const bool padded = std::all_of(end, field.end(), [](char c) { return c == '\0'; });
  return padded && container::is_label(text, N) ? text : std::string();
}

struct Directory {
  std::string kind;
  std::vector<Entry> table;
};

Header check_header(const std::filesystem::path& path, std::span<const std::byte> head,
                    std::uint64_t real_size) {
  const bool ours = head.size() >= container::kMagic.size() &&
                    std::memcmp(head.data(), container::kMagic.data(), 8) == 0;
  if (!ours) fail_corrupt(path, "not a keyseek file ({} bytes, wrong magic)", real_size);
  if (head.size() < sizeof(Header)) {
    fail_corrupt(path, "{} bytes, shorter than the header of {}", real_size, sizeof(Header));
  }
  Header header;
  std::memcpy(&header, head.data(), sizeof(Header));
  if (header.byte_order != container::kByteOrder) {
    fail_corrupt(path, "byte order marker is {:#010x}, must be {:#010x}", header.byte_order,
                 container::kByteOrder);
  }
  if (header.version > container::kVersion) {
    fail(ErrorCode::unsupported, "{}: format version {}, this build reads up to version {}",
         path.string(), header.version, container::kVersion);
  }
  if (header.version == 0) fail_corrupt(path, "format version 0");
  if (header.file_size != real_size) {
    fail_corrupt(path, "{} bytes, the header says {}", real_size, header.file_size);
  }
  return header;
}

/// Checks header and table. `head` is the file's beginning, long enough for the longest table.
Directory read_directory(const std::filesystem::path& path, std::span<const std::byte> head,
                         std::uint64_t real_size) {
  const Header header = check_header(path, head, real_size);
  const std::uint64_t table_end = sizeof(Header) + std::uint64_t{header.sections} * sizeof(Entry);
  if (header.sections > container::kMaxSections || table_end > real_size) {
    fail_corrupt(path, "{} sections do not fit", header.sections);
  }
  std::vector<Entry> table(header.sections);
  if (!table.empty()) {
    std::memcpy(table.data(), head.data() + sizeof(Header), table.size() * sizeof(Entry));
  }
  if (container::header_checksum(header, table) != header.checksum) {
    fail_corrupt(path, "header checksum does not match");
  }
  if (header.reserved != 0 || header.reserved_too != 0) {
    fail_corrupt(path, "reserved header bytes are not zero");
  }
  const std::string kind = label(header.kind);
  if (kind.empty()) fail_corrupt(path, "kind is not printable text");
  return {kind, std::move(table)};
}

/// Section bytes of entry i, which must start right behind `end`, zeros between.
std::span<const std::byte> check_section(const std::filesystem::path& path,
                                         std::span<const std::byte> file, const Entry& entry,
                                         const std::string& name, std::uint64_t end) {
  if (entry.size > file.size()) {
    fail_corrupt(path, "section '{}' has {} bytes, the file {}", name, entry.size, file.size());
  }
  const std::uint64_t offset = container::place(end, entry.size);
  if (entry.offset != offset || offset > file.size() - entry.size) {
    fail_corrupt(path, "section '{}' is at {} + {}, must be at {} in a file of {} bytes", name,
                 entry.offset, entry.size, offset, file.size());
  }
  const auto padding = file.subspan(end, offset - end);
  if (std::any_of(padding.begin(), padding.end(), [](std::byte b) { return b != std::byte{0}; })) {
    fail_corrupt(path, "padding before section '{}' is not zero", name);
  }
  const auto bytes = file.subspan(offset, entry.size);
  if (container::checksum(bytes) != entry.checksum) {
    fail_corrupt(path, "checksum of section '{}' does not match", name);
  }
  return bytes;
}

/// Header and table, before anything else is read: what the file is costs no more than that.
Directory read_head(const InputFile& file) {
  constexpr std::size_t kLongestHead = sizeof(Header) + container::kMaxSections * sizeof(Entry);
  std::vector<std::byte> head(std::min<std::uint64_t>(file.size(), sizeof(Header)));
  file.read_at(0, head);
  (void)check_header(file.path(), head, file.size());
  head.resize(std::min<std::uint64_t>(file.size(), kLongestHead));
  file.read_at(0, head);
  return read_directory(file.path(), head, file.size());
}

void check_kind(const std::filesystem::path& path, const std::string& found,
                std::string_view wanted) {
  if (!wanted.empty() && found != wanted)
    fail_corrupt(path, "holds \"{}\", not \"{}\"", found, wanted);
}

}  // namespace

ContainerReader::ContainerReader(const std::filesystem::path& path, std::span<const std::byte> file,
                                 std::shared_ptr<const void> owner)
    : path_(path), owner_(std::move(owner)) {
  Directory directory = read_directory(path, file, file.size());
  kind_ = std::move(directory.kind);
  std::uint64_t end = sizeof(Header) + directory.table.size() * sizeof(Entry);
  for (const Entry& entry : directory.table) {
    std::string name = label(entry.name);
    if (name.empty()) fail_corrupt(path, "name of section {} is not text", sections_.size());
    if (has(name)) fail_corrupt(path, "two sections are named '{}'", name);
    const auto bytes = check_section(path, file, entry, name, end);
    end = entry.offset + entry.size;
    sections_.push_back({std::move(name), bytes});
  }
  if (end != file.size()) fail_corrupt(path, "{} bytes behind the last section", file.size() - end);
}

ContainerReader ContainerReader::load(const std::filesystem::path& path, std::string_view kind) {
  const InputFile file(path);
  check_kind(path, read_head(file).kind, kind);
  // Of the real size, at a page: sections are aligned in memory as they are in the file.
  constexpr std::align_val_t kPage{4096};
  const std::size_t size = file.size();
  const std::shared_ptr<std::byte> memory(static_cast<std::byte*>(::operator new(size, kPage)),
                                          [](std::byte* p) { ::operator delete(p, kPage); });
  file.read_at(0, {memory.get(), size});
  return {path, {memory.get(), size}, memory};
}

ContainerReader ContainerReader::copy_of(std::span<const std::byte> bytes, std::string_view kind) {
  constexpr std::align_val_t kPage{4096};
  const std::size_t size = bytes.size();
  const std::shared_ptr<std::byte> memory(static_cast<std::byte*>(::operator new(size, kPage)),
                                          [](std::byte* p) { ::operator delete(p, kPage); });
  if (size > 0) std::memcpy(memory.get(), bytes.data(), size);
  ContainerReader reader("bytes in memory", {memory.get(), size}, memory);
  check_kind(reader.path_, reader.kind_, kind);
  return reader;
}

ContainerReader ContainerReader::map(const std::filesystem::path& path, std::string_view kind) {
  const InputFile file(path);
  check_kind(path, read_head(file).kind, kind);
  const std::size_t size = file.size();
  void* const address = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file.descriptor(), 0);
  if (address == MAP_FAILED) fail_io("map", path);
  const std::shared_ptr<const void> mapping(address, [size](const void* p) {
    ::munmap(const_cast<void*>(p), size);  // NOLINT(cppcoreguidelines-pro-type-const-cast)
  });
  ::madvise(address, size, MADV_WILLNEED);  // the checksums read everything, in order
  ContainerReader reader(path, {static_cast<const std::byte*>(address), size}, mapping);
  ::madvise(address, size, MADV_RANDOM);  // searches do not
  return reader;
}

std::string ContainerReader::peek_kind(const std::filesystem::path& path) {
  return read_head(InputFile(path)).kind;
}

bool ContainerReader::has(std::string_view name) const noexcept {
  return std::any_of(sections_.begin(), sections_.end(),
                     [&](const Section& section) { return section.name == name; });
}

std::string ContainerReader::text(std::string_view name) const {
  const auto bytes = section(name, 1);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::span<const std::byte> ContainerReader::section(std::string_view name,
                                                    std::size_t element_size) const {
  const auto found = std::find_if(sections_.begin(), sections_.end(),
                                  [&](const Section& section) { return section.name == name; });
  if (found == sections_.end()) fail_corrupt(path_, "section '{}' is missing", name);
  if (found->bytes.size() % element_size != 0) {
    fail_corrupt(path_, "section '{}' has {} bytes, not a multiple of {}", name,
                 found->bytes.size(), element_size);
  }
  return found->bytes;
}

}  // namespace keyseek
