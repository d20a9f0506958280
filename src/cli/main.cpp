/// The command line tool. Exit codes: 0 done, 1 internal error, 2 wrong usage or argument,
/// 3 corrupt file, 4 the system refused a file, 5 cancelled.
#include <fcntl.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "base/fail.hpp"
#include "cli/command.hpp"
#include "cli/console.hpp"
#include "cli/interrupt.hpp"
#include "keyseek/io.hpp"
#include "keyseek/version.hpp"

namespace keyseek::cli {
namespace {

constexpr int kInternalError = 1;
constexpr int kUsageError = 2;

int exit_code(ErrorCode code) {
  switch (code) {
    case ErrorCode::invalid_argument:
    case ErrorCode::not_finite:
    case ErrorCode::unsupported:
      return kUsageError;
    case ErrorCode::corrupt:
      return 3;
    case ErrorCode::io:
      return 4;
    case ErrorCode::cancelled:
      return 5;
  }
  return kInternalError;
}

/// One line on stderr, whatever the sentence holds.
int report(std::string sentence, int code) {
  for (char& c : sentence) c = c == '\n' ? ' ' : c;
  write_to(stderr, fmt::format("keyseek: error: {}\n", sentence));
  return code;
}

/// A stream that was closed is opened again, so that no file takes its number and gets what is
/// meant for the user. Nothing can be written to it: who writes is told so.
void keep_standard_streams() {
  for (int stream = 0; stream <= 2; ++stream) {
    if (::fcntl(stream, F_GETFD) < 0) (void)!::open("/dev/null", O_RDONLY);
  }
}

/// 0 when all that was printed has arrived. Of a stderr that fails, only the exit code can tell.
int check_output() {
  errno = 0;
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
    fail(ErrorCode::io, "cannot write to stdout: {}",
         errno == 0 ? "not all of it could be written" : std::strerror(errno));
  }
  return std::ferror(stderr) != 0 ? exit_code(ErrorCode::io) : 0;
}

void parse(CLI::App& tool, int argc, char** argv) {
  tool.parse(argc, argv);
  // Not CLI11's own check, which would come before --help and --version.
  require(!tool.get_subcommands().empty(), "no command is given: see keyseek --help");
}

int run(int argc, char** argv) {
  CLI::App tool(
      "Attention-aware vector search: maximum inner product of queries that are out of "
      "the keys' distribution.",
      "keyseek");
  tool.set_version_flag("--version", fmt::format("keyseek {}", kVersion));
  tool.require_subcommand(0, 1);
  tool.footer("Example:\n  keyseek info --isa\n\nkeyseek COMMAND --help explains a command.");
  const std::vector<Command> commands = {add_info(tool),   add_convert(tool), add_knn(tool),
                                         add_build(tool),  add_search(tool),  add_sweep(tool),
                                         add_decode(tool), add_verify(tool)};
  try {
    parse(tool, argc, argv);
  } catch (const CLI::Success& help_or_version) {
    std::ostringstream text;
    (void)tool.exit(help_or_version, text, text);
    write_to(stdout, text.str());
    return check_output();
  } catch (const CLI::ParseError& e) {
    return report(e.what(), kUsageError);
  }
  catch_interrupts();
  for (const Command& command : commands) {
    if (command.app->parsed()) command.run();
  }
  return check_output();
}

}  // namespace
}  // namespace keyseek::cli

int main(int argc, char** argv) {
  namespace cli = keyseek::cli;
  if (argc > 1 && argv[1] == keyseek::io::kHdf5HelperWord)
    return keyseek::io::serve_hdf5(argc, argv);
  cli::keep_standard_streams();
  std::signal(SIGPIPE, SIG_IGN);  // a pipe that is closed is an error like any other
  try {
    return cli::run(argc, argv);
  } catch (const keyseek::Error& e) {
    return cli::report(e.what(), cli::exit_code(e.code()));
  } catch (const std::bad_alloc&) {
    return cli::report("out of memory", cli::kInternalError);
  } catch (const std::exception& e) {
    return cli::report(fmt::format("internal: {}", e.what()), cli::kInternalError);
  }
}
