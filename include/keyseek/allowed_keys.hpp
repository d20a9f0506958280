/// Which keys a search may find: a bit for each.
///
/// A value; reading is thread-safe, and it must outlive the searches that are given it.
///
///     keyseek::AllowedKeys recent(index.size());
///     for (keyseek::Id id = 1000; id < 2000; ++id) recent.allow(id);
///     index.search(queries, {.k = 10, .allowed = &recent}, scratch, hits);
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "keyseek/matrix.hpp"

namespace keyseek {

class AllowedKeys {
 public:
  AllowedKeys() = default;
  /// Of `keys` keys, none.
  explicit AllowedKeys(std::size_t keys) : keys_(keys), words_((keys + 63) / 64) {}

  /// Throws Error(invalid_argument) when there is no such key.
  void allow(Id id);
  /// False of what is no key.
  [[nodiscard]] bool has(Id id) const noexcept {
    return id < keys_ && (words_[id / 64] >> (id % 64) & 1U) != 0;
  }
  /// Keys that are allowed or not.
  [[nodiscard]] std::size_t size() const noexcept { return keys_; }
  /// Keys that are allowed.
  [[nodiscard]] std::size_t count() const noexcept { return count_; }
  /// The first `most` that are allowed, in order, in the place of what `ids` held.
  void first(std::size_t most, std::vector<Id>& ids) const;

 private:
  std::size_t keys_ = 0, count_ = 0;
  std::vector<std::uint64_t> words_;
};

}  // namespace keyseek
