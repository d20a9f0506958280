#!/usr/bin/env bash
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'TEXT'
usage: scripts/accuracy.sh [--tables | --full]

Measures how much sparse attention changes a real model's answers: every policy decodes the same
gold answers from the same prefill. Rows go to build/accuracy/, and a page of tables and figures
is made of them; a run that was stopped goes on from there. (The tail of a text, and what a
budget or a promise makes of it, is in scripts/decode.sh.)

  (nothing)  SmolLM2 at 2,048 tokens, needles, pass keys, copying and the tail of a text; Gemma at
             2,048 and 8,192 tokens, keys, copying and tail; budgets of 32, 100 and 512 vectors;
             three seeds. About an hour on two cores after the downloads
  --tables   the same tasks at all lengths, SmolLM2 at 2K, 4K and 8K, Gemma at 2K, 8K, 16K and 32K:
             the tables of docs/accuracy.md. A night on two cores
  --full     all tasks and policies, five budgets, all lengths: days on two cores
TEXT
}

OUT=build/accuracy
SOME=streaming,snapkv,h2o,infllm,quest,ivf,hnsw,oracle,oracle+kmeans,keyseek,keyseek-projection

grid() {
  step "Measuring: $*"
  "$VENV/bin/python" -m keyseek.eval run --out "$OUT/results.jsonl" "$@"
}

# some MODEL LENGTHS TASKS
some() {
  grid --model "$1" --lengths "$2" --tasks "$3" --policies "$SOME" --budgets 32,100,512
}

# everything MODEL LENGTHS
everything() {
  grid --model "$1" --lengths "$2" --budgets 32,64,128,256,512
}

measure() {
  local short=needle,multi-key,passkey,copy,tail long=multi-key,copy,tail
  case $1 in
    --full)
      everything smollm2-135m 2048,4096,8192
      everything gemma3-270m 2048,8192,16384,32768
      ;;
    --tables)
      some smollm2-135m 2048,4096,8192 $short
      some gemma3-270m 2048,8192,16384,32768 $long
      ;;
    '')
      some smollm2-135m 2048 $short
      some gemma3-270m 2048,8192 $long
      ;;
  esac
}

flag_given '--tables --full' "$@" || true

need_apt "${BUILD_PACKAGES[@]}"
need_text
ensure_venv
ensure_cmake
step 'Building keyseek; installing it, its peers and the models into .venv'
install_package peers,report
install_capture_tools
mkdir -p "$OUT"

measure "${1:-}"

step 'Results'
"$VENV/bin/python" -m keyseek.eval report "$OUT/results.jsonl" -o "$OUT/report.html" --table --markdown
printf '\nFigures: %s\n' "$ROOT/$OUT/report.html"
