/// Builds indexes of any kind over one array of keys.
#pragma once

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

 private:
  AnyMatrix keys_;
  const TrainingQueries& training_;
  const Execution& run_;
};

}  // namespace keyseek
