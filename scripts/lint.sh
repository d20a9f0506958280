#!/usr/bin/env bash
# clang-tidy over the library and the tool, on the compile commands of scripts/test.sh's clang
# build (build/clang). Apart from the tests, because it takes as long as all of them.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

need_apt clang-tidy-14
[[ -f build/clang/compile_commands.json ]] || die 'build/clang is missing: run scripts/test.sh first'
printf '%s\n' src/*.cpp src/*/*.cpp | grep -v isa_neon |
  xargs -P "$JOBS" -n 4 clang-tidy-14 -p build/clang --quiet
