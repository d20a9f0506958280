/// The command line tool. Exit codes: 0 done, 1 internal error, 2 wrong usage or argument,
/// 3 corrupt file, 4 the system refused a file, 5 cancelled.
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <string>
#include <string_view>
#include <vector>

#include "base/fail.hpp"
#include "cli/command.hpp"
#include "cli/interrupt.hpp"
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
  fmt::print(stderr, "keyseek: error: {}\n", sentence);
  return code;
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
    return tool.exit(help_or_version);
  } catch (const CLI::ParseError& e) {
    return report(e.what(), kUsageError);
  }
  catch_interrupts();
  for (const Command& command : commands) {
    if (command.app->parsed()) command.run();
  }
  if (std::fflush(stdout) != 0) {
    fail(ErrorCode::io, "cannot write to stdout: {}", std::strerror(errno));
  }
  return 0;
}

}  // namespace
}  // namespace keyseek::cli

int main(int argc, char** argv) {
  namespace cli = keyseek::cli;
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
