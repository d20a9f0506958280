#!/usr/bin/env bash
# Builds keyseek and runs every check there is, installing what is missing (Debian 12 or
# Ubuntu 24.04). Ends with the time of each part and a line `N passed, N failed`; about 25 minutes
# on two cores.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

RESULTS=$ROOT/build/test-results
passed=0
failed=0
parts=() # seconds and name of each, one after the other
part_began=0

# end_part NAME: what went before belongs to that part of the table at the end.
end_part() {
  parts+=("$((SECONDS - part_began))" "$1")
  part_began=$SECONDS
}

# Where the time went, whatever ends the script.
print_parts() {
  parts+=("$SECONDS" 'in all')
  printf '\n%7s  part\n' seconds
  printf '%7d  %s\n' "${parts[@]}"
}
trap print_parts EXIT

# attempt COMMAND...: leaves its exit status in `status`. Never part of a condition, where bash
# would ignore set -e in all that runs inside.
attempt() {
  set +e
  (
    set -e
    "$@"
  )
  status=$?
  set -e
}

# check NAME COMMAND...: counts as one test.
check() {
  step "$1"
  attempt "${@:2}"
  if ((status == 0)); then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "FAILED: $1"
  fi
  end_part "$1"
}

# suite NAME FILE COMMAND...: counts the tests in the JUnit file that the command writes.
suite() {
  local good=0 bad=0
  step "$1"
  rm -f "$2"
  attempt "${@:3}"
  if [[ -f $2 ]]; then
    read -r good bad < <(count_tests "$2")
  fi
  if ((status != 0 && bad == 0)); then
    bad=1
  fi
  passed=$((passed + good))
  failed=$((failed + bad))
  ((bad == 0)) || echo "FAILED: $1"
  end_part "$1"
}

# Prints how many tests of a JUnit file passed and failed; skipped ones are neither.
count_tests() {
  python3 - "$1" <<'PYTHON'
import sys
import xml.etree.ElementTree as xml

good = bad = 0
for case in xml.parse(sys.argv[1]).iter("testcase"):
    if case.find("failure") is not None or case.find("error") is not None:
        bad += 1
    elif case.find("skipped") is None:
        good += 1
print(good, bad)
PYTHON
}

format_is_clean() {
  find include src cuda tests bench python examples -regextype egrep -regex '.*\.(cpp|hpp|inl|cuh?)' -print0 |
    xargs -0 clang-format-14 --dry-run --Werror
}

build_release() {
  cmake --preset release -DKEYSEEK_CUDA="$CUDA"
  cmake --build --preset release -j "$JOBS"
  cmake --build --preset release -j "$JOBS" --target all_verify_interface_header_sets
}

# The wheel has the objects of the release build, from ccache: with -Werror as there, and with
# paths below the root taken as relative, its commands are the same ones. The sloppiness
# is what ccache asks for where there are precompiled headers.
share_objects() {
  export CMAKE_C_COMPILER_LAUNCHER=ccache CMAKE_CXX_COMPILER_LAUNCHER=ccache
  export CCACHE_BASEDIR=$ROOT CCACHE_SLOPPINESS=pch_defines,time_macros
  export SKBUILD_CMAKE_DEFINE=KEYSEEK_WERROR=ON
}

# clang, so that both compilers see all code; address and undefined behaviour in one run.
build_clang() {
  cmake --preset asan -B build/clang -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++ \
    -DKEYSEEK_SANITIZE=address,undefined -DKEYSEEK_WERROR=ON
  cmake --build build/clang -j "$JOBS"
}

# On the compile commands of the clang build.
tidy_is_clean() {
  printf '%s\n' src/*.cpp src/*/*.cpp | grep -v isa_neon |
    xargs -P "$JOBS" -n 4 clang-tidy-14 -p build/clang --quiet
}

python_is_clean() {
  "$VENV/bin/ruff" check
  "$VENV/bin/ruff" format --check
}

neon_compiles() {
  mkdir -p build/neon
  ln -sfn /usr/include/xsimd build/neon/xsimd
  aarch64-linux-gnu-g++ -std=c++20 -O2 -Wall -Wextra -Werror -Iinclude -Isrc -isystem build/neon \
    -c src/score/isa_neon.cpp -o build/neon/isa_neon.o
}

# The newest that is supported, beside the one that the capture tools need: both by exact version.
install_transformers5() {
  local wanted=tests/python/requirements-transformers5.txt
  if ! cmp -s "$wanted" build/transformers5/installed.txt; then
    rm -rf build/transformers5
    pip_install --target build/transformers5 -r "$wanted"
    cp "$wanted" build/transformers5/installed.txt
  fi
}

install_kvpress() {
  [[ -d build/kvpress/kvpress ]] ||
    pip_install --target build/kvpress --no-deps -r tests/python/requirements-kvpress.txt
  PYTHONPATH=build/kvpress "$VENV/bin/python" -c 'import kvpress'
}

# run_pytest FOLDER ARGUMENT...: before other packages, those of FOLDER. A process for each
# core, and torch's threads would only be in each other's way.
run_pytest() {
  PYTHONPATH=${1:+$ROOT/$1} OMP_NUM_THREADS=1 \
    "$VENV/bin/python" -m pytest -q -n "$JOBS" --dist worksteal "${@:2}"
}

# The wheel carries library and headers: its cmake.prefix entry point leads to them.
wheel_is_a_cmake_package() {
  local prefix
  prefix=$(cd / && "$VENV/bin/python" -c 'import keyseek; print(*keyseek.__path__)')
  cmake -S tests/install -B build/wheel-consumer -DCMAKE_PREFIX_PATH="$prefix" >/dev/null
  cmake --build build/wheel-consumer >/dev/null
  build/wheel-consumer/consumer
}

need_apt "${BUILD_PACKAGES[@]}" "${TEST_PACKAGES[@]}" ccache clang libclang-rt-dev llvm \
  clang-format-14 clang-tidy-14
[[ $(uname -m) != x86_64 ]] || need_apt g++-aarch64-linux-gnu
# To look at pages with; Ubuntu has it as a snap only, and does without that test.
if grep -q '^ID=debian' /etc/os-release; then need_apt chromium; fi
ensure_venv
ensure_cmake
CUDA=ON
if ! ensure_nvcc; then
  CUDA=OFF
  step 'No nvcc: the CUDA kernels are only tested in the emulation'
fi
mkdir -p "$RESULTS"
share_objects
end_part 'Installing what is missing'

check 'Format' format_is_clean
check 'Build (g++, release)' build_release
suite 'Tests' "$RESULTS/release.xml" \
  ctest --preset release -j "$JOBS" --output-junit "$RESULTS/release.xml"
[[ $CUDA == OFF ]] || check 'CUDA kernels (every architecture, registers, spills)' \
  "$VENV/bin/python" cuda/kernel_report.py
[[ $(uname -m) != x86_64 ]] || check 'The NEON unit compiles' neon_compiles
check 'Build (clang, address and undefined behaviour sanitizers)' build_clang
suite 'Tests under the sanitizers' "$RESULTS/sanitized.xml" \
  ctest --test-dir build/clang --output-on-failure -j "$JOBS" --output-junit "$RESULTS/sanitized.xml"
check 'Build (wheel)' install_package test,lint,report,peers
check 'Static analysis (clang-tidy)' tidy_is_clean
check 'Capture tools' install_capture_tools
check 'Format and rules of Python (ruff)' python_is_clean
check 'Types of Python (mypy)' "$VENV/bin/mypy"
suite 'Python tests' "$RESULTS/python.xml" run_pytest '' --junit-xml="$RESULTS/python.xml"
check 'transformers 5' install_transformers5
suite 'Tests with transformers 5' "$RESULTS/transformers5.xml" run_pytest build/transformers5 \
  tests/python/test_hf*.py tests/python/test_eval*.py --junit-xml="$RESULTS/transformers5.xml"
check 'kvpress' install_kvpress
suite 'Tests beside kvpress' "$RESULTS/kvpress.xml" run_pytest build/kvpress \
  tests/python/test_kvpress.py --junit-xml="$RESULTS/kvpress.xml"
check 'find_package(keyseek) from the wheel' wheel_is_a_cmake_package

trap - EXIT
print_parts
printf '\n%d passed, %d failed\n' "$passed" "$failed"
((failed == 0))
