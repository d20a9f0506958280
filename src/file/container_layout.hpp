/// Bytes of the container's header and table, shared by its writer and its reader.
#pragma once

#include <xxhash.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <type_traits>
#include <vector>

namespace keyseek::container {

static_assert(std::endian::native == std::endian::little, "keyseek's files are little-endian");

inline constexpr std::array<char, 8> kMagic = {'K', 'E', 'Y', 'S', 'E', 'E', 'K', '\0'};
inline constexpr std::uint32_t kVersion = 1;
inline constexpr std::uint32_t kByteOrder = 0x01020304;
inline constexpr std::size_t kMaxKind = 16;
inline constexpr std::size_t kMaxName = 24;
inline constexpr std::size_t kMaxSections = 1024;

struct Header {
  std::array<char, 8> magic = kMagic;
  std::uint32_t version = kVersion;
  std::uint32_t byte_order = kByteOrder;
  std::array<char, kMaxKind> kind = {};
  std::uint64_t file_size = 0;
  std::uint32_t sections = 0;
  std::uint32_t reserved = 0;
  /// XXH3-64 over this header, with 0 here, and the table.
  std::uint64_t checksum = 0;
  std::uint64_t reserved_too = 0;
};
static_assert(sizeof(Header) == 64 && std::has_unique_object_representations_v<Header>);

struct Entry {
  std::array<char, kMaxName> name = {};
  std::uint64_t offset = 0;
  std::uint64_t size = 0;
  std::uint64_t checksum = 0;
};
static_assert(sizeof(Entry) == 48 && std::has_unique_object_representations_v<Entry>);

/// Large sections start at a page, so that they can be mapped or advised on their own.
inline constexpr std::uint64_t kLarge = std::uint64_t{1} << 20;
[[nodiscard]] constexpr std::uint64_t alignment_of(std::uint64_t section_size) noexcept {
  return section_size >= kLarge ? 4096 : 64;
}
/// Where a section of `size` bytes starts when the one before ends at `end`.
[[nodiscard]] constexpr std::uint64_t place(std::uint64_t end, std::uint64_t size) noexcept {
  const std::uint64_t alignment = alignment_of(size);
  return (end + alignment - 1) / alignment * alignment;
}

[[nodiscard]] inline std::uint64_t checksum(std::span<const std::byte> bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

/// Of header and table together; the header's own field counts as 0.
[[nodiscard]] inline std::uint64_t header_checksum(Header header, std::span<const Entry> table) {
  header.checksum = 0;
  std::vector<std::byte> bytes(sizeof(Header) + table.size_bytes());
  std::memcpy(bytes.data(), &header, sizeof(Header));
  if (!table.empty()) std::memcpy(bytes.data() + sizeof(Header), table.data(), table.size_bytes());
  return checksum(bytes);
}

/// Kinds and names: printable ASCII without spaces, so that errors can quote them.
[[nodiscard]] constexpr bool is_label(std::string_view text, std::size_t max) noexcept {
  return !text.empty() && text.size() <= max &&
         std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c <= '~'; });
}

}  // namespace keyseek::container
