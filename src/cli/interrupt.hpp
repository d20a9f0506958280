/// Ctrl-C as a wish: work looks for it and ends in order, with exit code 5.
#pragma once

#include <string_view>

namespace keyseek::cli {

/// From here on SIGINT and SIGTERM set a flag; the second one ends the process at once.
void catch_interrupts();
[[nodiscard]] bool interrupted() noexcept;
/// Throws Error(cancelled), naming `stage`, when the flag is set.
void stop_if_interrupted(std::string_view stage);

}  // namespace keyseek::cli
