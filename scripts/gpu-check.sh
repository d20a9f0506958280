#!/usr/bin/env bash
# For a machine with an NVIDIA GPU: builds with CUDA, runs the tests on the device, again under
# compute-sanitizer, and measures a decode step: build/gpu-check.jsonl, and a table of it.
# gpu-check.sh [TOKENS...]: context lengths, 4K to 128K if none are given.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

OUT=$ROOT/build/gpu-check.jsonl
TESTS=build/cuda/tests/keyseek_cuda_tests
CONTEXTS=("$@")
((${#CONTEXTS[@]})) || CONTEXTS=(4096 8192 16384 32768 65536 131072)

command -v nvidia-smi >/dev/null && nvidia-smi -L || die 'no NVIDIA GPU here (nvidia-smi finds none)'
need_apt "${BUILD_PACKAGES[@]}" "${TEST_PACKAGES[@]}"
ensure_cmake
ensure_nvcc || die 'no nvcc, and none to be had from PyPI'

step 'Build'
cmake --preset cuda
cmake --build --preset cuda -j "$JOBS" --target keyseek_cuda_tests keyseek_gpu_bench

# on_device COMMAND...: the tests on the device; one that is skipped has not shown anything.
on_device() {
  local log=build/gpu-check.log
  "$@" "$TESTS" --gtest_filter='OnDevice.*' | tee "$log"
  ! grep -q 'SKIPPED' "$log" || die 'the tests found no device they can use'
}

step 'Tests, in the emulation and on the device'
"$TESTS" --gtest_brief=1
on_device env

if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck synccheck; do
    step "compute-sanitizer, $tool"
    on_device compute-sanitizer --tool "$tool" --error-exitcode 1
  done
else
  step 'No compute-sanitizer: memory and races are not checked'
fi

step 'A decode step'
build/cuda/bench/keyseek_gpu_bench "${CONTEXTS[@]}" | tee "$OUT"
if python3 -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
  python3 bench/gpu/peers.py "${CONTEXTS[@]}" | tee -a "$OUT"
else
  step 'No torch with CUDA: full attention is not measured'
fi
step "Measured, microseconds of a layer; all of it is in ${OUT#"$ROOT/"}"
python3 bench/gpu/table.py "$OUT"
