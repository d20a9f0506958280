/// Errors of the operating system as keyseek::Error.
#pragma once

#include <cerrno>
#include <filesystem>
#include <string_view>
#include <system_error>

#include "base/fail.hpp"
#include "keyseek/system_error.hpp"

namespace keyseek {

/// fail_io("rename", path): "cannot rename /data/a.ks: Permission denied".
[[noreturn]] inline void fail_io(std::string_view verb, const std::filesystem::path& path,
                                 int error = errno) {
  throw SystemError(
      fmt::format("cannot {} {}: {}", verb, path.string(), std::generic_category().message(error)),
      error, path);
}

}  // namespace keyseek
