/// What the indexes check before they search a step.
#pragma once

#include "keyseek/key_store.hpp"
#include "keyseek/search.hpp"

namespace keyseek {

/// Throws Error(invalid_argument) unless a step of these queries can be searched.
void require_step(MatrixView<float> queries, const SearchParams& params, const KeyStore& store);

}  // namespace keyseek
