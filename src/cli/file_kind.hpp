/// What a file is expected to hold, by its name.
#pragma once

#include <string>

namespace keyseek::cli {

enum class FileKind {
  vectors,    ///< .fbin, .f16bin, .i8bin, .u8bin, .fvecs, .bvecs
  ids,        ///< .ibin, .ivecs
  npy,        ///< vectors or ids
  benchmark,  ///< .h5, .hdf5
  capture,    ///< .attn.h5, without or with a head behind it
  other,      ///< an index, if anything
};

[[nodiscard]] FileKind file_kind(const std::string& name);

}  // namespace keyseek::cli
