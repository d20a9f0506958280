/// The files of corpus-texmex (.fvecs, .bvecs, .ivecs): every row is a u32 dimension, then its
/// elements of type f32, u8 or i32.
#pragma once

#include "file/input_file.hpp"
#include "keyseek/matrix.hpp"

namespace keyseek::io {

// Each throws Error(corrupt) naming the file when its rows differ in dimension, or when it does not
// end with a row.

[[nodiscard]] AnyMatrix read_fvecs(const InputFile& file);
/// u8 values as f32.
[[nodiscard]] AnyMatrix read_bvecs(const InputFile& file);
/// -1 becomes kNoId.
[[nodiscard]] Matrix<Id> read_ivecs(const InputFile& file);

}  // namespace keyseek::io
