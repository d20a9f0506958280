/// The container every index file is: named sections of bytes behind a checked table.
/// Byte by byte in docs/index-format.md.
///
///     ContainerWriter writer("flat");
///     writer.add("codes", std::as_bytes(codes.span()));   // looked at, not copied
///     writer.add_text("params", json);
///     writer.save("head.ks");
///     auto reader = ContainerReader::map("head.ks");      // or load(): a private copy
///     SharedArray<std::uint8_t> codes = reader.array<std::uint8_t>("codes");
///
/// A writer belongs to one thread. A reader is immutable; arrays taken from it share
/// its memory and outlive it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "keyseek/matrix.hpp"

namespace keyseek {

class ContainerWriter {
 public:
  /// `kind` says what the file is: 1 to 16 printable ASCII characters.
  explicit ContainerWriter(std::string kind);
  ContainerWriter(const ContainerWriter&) = delete;  // sections look into texts_
  ContainerWriter& operator=(const ContainerWriter&) = delete;

  /// Names are unique, 1 to 24 printable ASCII characters. `bytes` must live until save().
  void add(std::string name, std::span<const std::byte> bytes);
  void add_text(std::string name, std::string text);

  /// Writes temp file, fsync, rename, fsync directory: on any Error the old file is untouched.
  void save(const std::filesystem::path& path) const;
  /// What the file would hold.
  [[nodiscard]] std::vector<std::byte> bytes() const;

 private:
  struct Section {
    std::string name;
    std::span<const std::byte> bytes;
  };
  /// write(bytes) for piece after piece of the file.
  template <class Write>
  void put(const Write& write) const;

  std::string kind_;
  std::vector<Section> sections_;
  std::deque<std::string> texts_;  // a deque: sections look at its elements
};

class ContainerReader {
 public:
  /// Reads the whole file into memory of its own. `kind` is what it must be; empty: any.
  [[nodiscard]] static ContainerReader load(const std::filesystem::path& path,
                                            std::string_view kind = {});
  /// Maps the file read-only; every page is read once for the checksums. The file may be
  /// replaced by a save meanwhile (the old one stays mapped), but must not be truncated.
  [[nodiscard]] static ContainerReader map(const std::filesystem::path& path,
                                           std::string_view kind = {});
  // Both look at header and table before they read or map the rest. They throw Error(io) when the
  // file cannot be read, Error(unsupported) for a newer format version, Error(corrupt) naming path
  // and fault for everything else.

  /// Likewise what ContainerWriter::bytes gave, copied; errors name it as the path does.
  [[nodiscard]] static ContainerReader copy_of(std::span<const std::byte> bytes,
                                               std::string_view kind = {});

  /// Kind of the file; checks the header and the table, not the sections.
  [[nodiscard]] static std::string peek_kind(const std::filesystem::path& path);

  [[nodiscard]] const std::string& kind() const noexcept { return kind_; }
  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }
  [[nodiscard]] bool has(std::string_view name) const noexcept;

  /// The section as an array of T. Throws Error(corrupt) when it is missing or not a
  /// whole number of T.
  template <class T>
  [[nodiscard]] SharedArray<T> array(std::string_view name) const {
    static_assert(std::is_trivially_copyable_v<T> && alignof(T) <= kAlignment);
    const auto bytes = section(name, sizeof(T));
    return {{reinterpret_cast<const T*>(bytes.data()), bytes.size() / sizeof(T)}, owner_};
  }
  [[nodiscard]] std::string text(std::string_view name) const;

  static constexpr std::size_t kAlignment = 64;

 private:
  struct Section {
    std::string name;
    std::span<const std::byte> bytes;
  };
  ContainerReader(const std::filesystem::path& path, std::span<const std::byte> file,
                  std::shared_ptr<const void> owner);
  [[nodiscard]] std::span<const std::byte> section(std::string_view name,
                                                   std::size_t element_size) const;

  std::filesystem::path path_;
  std::shared_ptr<const void> owner_;
  std::string kind_;
  std::vector<Section> sections_;
};

}  // namespace keyseek
