/// What all keys share: KeyStore and Sketch leave it out.
#pragma once

#include "keyseek/execution.hpp"
#include "keyseek/matrix.hpp"

namespace keyseek {

/// Mean of each column of `keys` [n, d], the same at any number of threads.
[[nodiscard]] AlignedVector<float> channel_means(AnyMatrixView keys, const Execution& run);

}  // namespace keyseek
