/// Throwing keyseek::Error with a formatted sentence.
#pragma once

#include <fmt/format.h>

#include <utility>

#include "keyseek/error.hpp"

namespace keyseek {

/// fail(ErrorCode::invalid_argument, "k is {}, but there are {} keys", k, n);
template <class... Args>
[[noreturn]] void fail(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(code, fmt::format(format, std::forward<Args>(args)...));
}

/// Refuses an argument unless `ok`.
template <class... Args>
void require(bool ok, fmt::format_string<Args...> format, Args&&... args) {
  if (!ok)
    throw Error(ErrorCode::invalid_argument, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace keyseek
