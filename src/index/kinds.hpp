/// The list of the kinds of index: a new one is added here and in its own file.
#pragma once

#include <memory>
#include <string_view>
#include <variant>

#include "base/fail.hpp"
#include "index/builder.hpp"
#include "index/index_state.hpp"

namespace keyseek {

struct KindOfIndex {
  IndexKind kind;
  std::string_view name;  ///< also of its files
  CodeLayout layout;      ///< of its key store
  std::shared_ptr<const IndexState> (*build)(IndexBuilder& builder, const IndexParams& params);
  std::shared_ptr<const IndexState> (*read)(const ContainerReader& file, KeyStore store);
};

// Each in the file of its kind.
extern const KindOfIndex kFlatKind;
extern const KindOfIndex kSketchKind;
extern const KindOfIndex kProjectionKind;

[[nodiscard]] const KindOfIndex& entry_of(IndexKind kind) noexcept;
/// Throws Error(unsupported) naming `path` when no kind of index has this name.
[[nodiscard]] const KindOfIndex& entry_of_file(std::string_view kind,
                                               const std::filesystem::path& path);

/// The params of this kind, or its defaults. Throws Error when they are of another kind.
template <class Params>
[[nodiscard]] Params params_of(const IndexParams& params, IndexKind kind) {
  if (std::holds_alternative<std::monostate>(params)) return {};
  const auto* own = std::get_if<Params>(&params);
  require(own != nullptr, "params are of another kind of index than {}", to_string(kind));
  return *own;
}

}  // namespace keyseek
