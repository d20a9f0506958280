/// Queries in few coordinates: what Router and Sketch compare.
#pragma once

#include "keyseek/key_store.hpp"
#include "keyseek/matrix.hpp"

namespace keyseek {

/// out[g * r + j] = <queries[g], row j of map>, for `map` [r, d] in f16. `scratch` has room for as
/// many.
void project(MatrixView<float> queries, AnyMatrixView map, float* out, float* scratch);

/// Codes, scales and corrections of `rows` [G, r]; the offsets of `out` are not touched.
void encode_projected(MatrixView<float> rows, EncodedQueries& out);

}  // namespace keyseek
