/// Exact lists over keys that are encoded already.
#pragma once

#include "keyseek/key_store.hpp"
#include "keyseek/knn.hpp"

namespace keyseek {

/// What exact_knn gives for the store's keys, whose codes (in rows) were made for `queries`. The
/// arguments are checked by the caller.
[[nodiscard]] KnnLists knn_of(const KeyStore& store, MatrixView<float> queries,
                              const KnnParams& params, const Execution& run);

}  // namespace keyseek
