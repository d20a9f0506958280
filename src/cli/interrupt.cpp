/// Notes the first Ctrl-C for work to see; the second one ends the process.
#include "cli/interrupt.hpp"

#include <csignal>

namespace keyseek::cli {
namespace {

// The one global: a signal handler reaches nothing else.
volatile std::sig_atomic_t interrupt_wanted = 0;

void note_signal(int /*signal*/) { interrupt_wanted = 1; }

}  // namespace

void catch_interrupts() {
  struct sigaction action {};
  action.sa_handler = note_signal;
  action.sa_flags = static_cast<int>(SA_RESTART | SA_RESETHAND);
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

bool interrupted() noexcept { return interrupt_wanted != 0; }

}  // namespace keyseek::cli
