/// Temporary files of saves, and what becomes of those that killed processes left.
///
/// A temporary file is locked (an open file description lock: those that HDF5 asks for are others)
/// from its creation to its end. The system drops the lock when the process dies, however it dies
/// and in whichever container, so a file that can be locked belongs to nobody.
#pragma once

#include <sys/types.h>

#include <filesystem>

namespace keyseek {

struct TemporaryFile {
  std::filesystem::path path;
  int descriptor = -1;  ///< open for writing; -1: errno says why there is none
};

/// Makes and locks a file of a new name in `folder`.
[[nodiscard]] TemporaryFile create_temporary(const std::filesystem::path& folder, mode_t mode);

/// Removes temporary files in `folder` that no process holds. What cannot be looked at stays.
void remove_abandoned(const std::filesystem::path& folder);

}  // namespace keyseek
