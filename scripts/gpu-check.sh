#!/usr/bin/env bash
# For a machine with an NVIDIA GPU: builds with CUDA, runs the tests on the device, again under
# compute-sanitizer, and measures a decode step: build/gpu-check.jsonl, and a table of it.
# gpu-check.sh [--capture FILE.attn.h5] [TOKENS...]: context lengths, by default 4K to 128K of made
# vectors in the shape of Llama-3-8B, or 4K and 8K of a capture (datasets/sample has one).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

OUT=$ROOT/build/gpu-check.jsonl
TESTS=build/cuda/tests/keyseek_cuda_tests
VECTORS=()
CONTEXTS=(4096 8192 16384 32768 65536 131072)
if [[ ${1:-} == --capture ]]; then
  VECTORS=(--capture "${2:?--capture needs a file}")
  CONTEXTS=(4096 8192)
  shift 2
fi
(($# == 0)) || CONTEXTS=("$@")

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

if python3 -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
  step 'The Python package with CUDA, beside a model on the device'
  python3 -m venv --system-site-packages build/gpu-venv
  build/gpu-venv/bin/python -m pip install --quiet --disable-pip-version-check \
    --config-settings=build-dir=build/python-cuda --config-settings=cmake.define.KEYSEEK_CUDA=ON \
    '.[hf,test]'
  build/gpu-venv/bin/python -m pytest -q tests/python/test_hf_device.py
else
  step 'No torch with CUDA: the Python package is not tested on the device'
fi

step 'A decode step'
build/cuda/bench/keyseek_gpu_bench "${VECTORS[@]}" "${CONTEXTS[@]}" | tee "$OUT"
if python3 -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
  python3 bench/gpu/peers.py "$OUT" >build/gpu-check-peers.jsonl
  tee -a "$OUT" <build/gpu-check-peers.jsonl
else
  step 'No torch with CUDA: full attention is not measured'
fi
step "Measured, microseconds of a layer; all of it is in ${OUT#"$ROOT/"}"
python3 bench/gpu/table.py "$OUT"
