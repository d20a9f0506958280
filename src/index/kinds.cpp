/// The kinds of index, by number, by name and by file.
#include "index/kinds.hpp"

#include <algorithm>
#include <array>
#include <string>

#include "file/container.hpp"

namespace keyseek {
namespace {

constexpr std::array kKinds = {&kFlatKind, &kSketchKind, &kProjectionKind};

const KindOfIndex* find(std::string_view name) {
  const auto found =
      std::find_if(kKinds.begin(), kKinds.end(), [&](const auto* k) { return k->name == name; });
  return found == kKinds.end() ? nullptr : *found;
}

}  // namespace

const KindOfIndex& entry_of(IndexKind kind) noexcept {
  return *kKinds[static_cast<std::size_t>(kind)];
}

const KindOfIndex& entry_of_file(std::string_view kind, const std::filesystem::path& path) {
  const KindOfIndex* found = find(kind);
  if (found == nullptr)
    fail(ErrorCode::unsupported, "{} holds \"{}\", which is no index", path.string(), kind);
  return *found;
}

std::span<const IndexKind> index_kinds() noexcept {
  static const auto kinds = [] {
    std::array<IndexKind, kKinds.size()> all{};
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = kKinds[i]->kind;
    return all;
  }();
  return kinds;
}

std::string_view to_string(IndexKind kind) noexcept { return entry_of(kind).name; }

IndexKind index_kind_of(std::string_view name, std::string_view argument) {
  const KindOfIndex* found = find(name);
  if (found != nullptr) return found->kind;
  std::string known;
  for (const KindOfIndex* kind : kKinds) known.append(known.empty() ? "" : ", ").append(kind->name);
  fail(ErrorCode::invalid_argument, "{} is '{}', must be one of {}", argument, name, known);
}

IndexKind index_kind(const std::filesystem::path& path) {
  return entry_of_file(ContainerReader::peek_kind(path), path).kind;
}

}  // namespace keyseek
