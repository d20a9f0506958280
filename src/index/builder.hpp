/// Builds indexes over one array of keys, with what several kinds of them need made once.
#pragma once

#include <optional>

#include "keyseek/index.hpp"
#include "keyseek/key_store.hpp"

namespace keyseek {

class IndexBuilder {
 public:
  /// Refers to `training` and `run`.
  IndexBuilder(AnyMatrix keys, const TrainingQueries& training, const Execution& run)
      : keys_(std::move(keys)), training_(training), run_(run) {}

  [[nodiscard]] Index build(IndexKind kind, const IndexParams& params = {});

  [[nodiscard]] const AnyMatrix& keys() const noexcept { return keys_; }
  [[nodiscard]] const TrainingQueries& training() const noexcept { return training_; }
  [[nodiscard]] const Execution& run() const noexcept { return run_; }
  /// In rows, with codes made for the training queries; encoded at first use.
  [[nodiscard]] const KeyStore& trained_store();

 private:
  AnyMatrix keys_;
  const TrainingQueries& training_;
  const Execution& run_;
  std::optional<KeyStore> trained_;
};

}  // namespace keyseek
