/// Writes the container's sections one after the other, each with its checksum.
#include <algorithm>
#include <utility>

#include "base/fail.hpp"
#include "file/atomic_file.hpp"
#include "file/container.hpp"
#include "file/container_layout.hpp"

namespace keyseek {

using container::Entry;
using container::Header;

ContainerWriter::ContainerWriter(std::string kind) : kind_(std::move(kind)) {
  require(container::is_label(kind_, container::kMaxKind),
          "kind is '{}', must be 1 to {} printable characters", kind_, container::kMaxKind);
}

void ContainerWriter::add(std::string name, std::span<const std::byte> bytes) {
  require(container::is_label(name, container::kMaxName),
          "section name is '{}', must be 1 to {} printable characters", name, container::kMaxName);
  require(std::none_of(sections_.begin(), sections_.end(),
                       [&](const Section& other) { return other.name == name; }),
          "section '{}' was added twice", name);
  require(sections_.size() < container::kMaxSections, "section '{}' is one more than {}", name,
          container::kMaxSections);
  sections_.push_back({std::move(name), bytes});
}

void ContainerWriter::add_text(std::string name, std::string text) {
  const std::string& kept = texts_.emplace_back(std::move(text));
  add(std::move(name), std::as_bytes(std::span(kept)));
}

template <class Write>
void ContainerWriter::put(const Write& write) const {
  std::vector<Entry> table(sections_.size());
  std::uint64_t end = sizeof(Header) + table.size() * sizeof(Entry);
  for (std::size_t i = 0; i < table.size(); ++i) {
    const Section& section = sections_[i];
    std::copy(section.name.begin(), section.name.end(), table[i].name.begin());
    table[i].size = section.bytes.size();
    table[i].offset = container::place(end, table[i].size);
    table[i].checksum = container::checksum(section.bytes);
    end = table[i].offset + table[i].size;
  }

  Header header;
  std::copy(kind_.begin(), kind_.end(), header.kind.begin());
  header.file_size = end;
  header.sections = static_cast<std::uint32_t>(table.size());
  header.checksum = container::header_checksum(header, table);

  write(std::as_bytes(std::span(&header, 1)));
  write(std::as_bytes(std::span(table)));
  std::uint64_t position = sizeof(Header) + table.size() * sizeof(Entry);
  const std::vector<std::byte> zeros(4096);
  for (std::size_t i = 0; i < table.size(); ++i) {
    write(std::span(zeros).first(table[i].offset - position));
    write(sections_[i].bytes);
    position = table[i].offset + table[i].size;
  }
}

void ContainerWriter::save(const std::filesystem::path& path) const {
  AtomicFile file(path);
  put([&](std::span<const std::byte> piece) { file.write(piece); });
  file.commit();
}

std::vector<std::byte> ContainerWriter::bytes() const {
  std::vector<std::byte> all;
  put([&](std::span<const std::byte> piece) { all.insert(all.end(), piece.begin(), piece.end()); });
  return all;
}

}  // namespace keyseek
