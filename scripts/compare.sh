#!/usr/bin/env bash
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'TEXT'
usage: scripts/compare.sh COMMIT [HEAD...]

Compares the time of a step of this tree with that of COMMIT, in one run: builds the tool `keyseek`
of both, lets them take turns on one pinned thread, and prints the medians and their ratio as a
table: searches by every kind of index at tuned dials, caches hot and cold, and decoding.
HEAD: heads of captures, FILE.attn.h5:L15/K0; without any, those of the sample. Leave the machine
alone meanwhile.
TEXT
}

# build_tool SOURCE FOLDER
build_tool() {
  cmake -S "$1" -B "$2" -G Ninja -DCMAKE_BUILD_TYPE=Release -DKEYSEEK_BUILD_TESTS=OFF >/dev/null
  cmake --build "$2" -j "$JOBS" --target keyseek_cli
}

case "${1:-}" in
  -h | --help)
    usage
    exit
    ;;
  '' | -*)
    usage >&2
    exit 2
    ;;
esac
commit=$(git rev-parse --verify --quiet "$1^{commit}") || die "COMMIT is $1, which git does not know"
shift
SAMPLE=datasets/sample/smollm2-8k-pydoc.attn.h5
(($#)) || set -- "$SAMPLE:L2/K0" "$SAMPLE:L15/K0"

need_apt "${BUILD_PACKAGES[@]}"
ensure_cmake
OTHER=build/compare/$commit
step "Building this tree, and ${commit:0:12}"
if [[ ! -x $OTHER/build/keyseek ]]; then
  rm -rf "$OTHER"
  mkdir -p "$OTHER/source"
  git archive "$commit" | tar -x -C "$OTHER/source"
  build_tool "$OTHER/source" "$OTHER/build"
fi
build_tool . build/compare/tree

step "Measuring: before is ${commit:0:12}, after is this tree"
python3 bench/compare.py "$OTHER/build/keyseek" build/compare/tree/keyseek "$@"
