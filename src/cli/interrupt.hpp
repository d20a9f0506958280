/// Ctrl-C as a wish: work looks for it and ends in order, with exit code 5.
#pragma once

namespace keyseek::cli {

/// From here on SIGINT and SIGTERM set a flag; the second one ends the process at once.
void catch_interrupts();
[[nodiscard]] bool interrupted() noexcept;

}  // namespace keyseek::cli
