#!/usr/bin/env bash
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'TEXT'
usage: scripts/demo.sh [--quick]

Builds keyseek, captures attention vectors of a real model, and measures our indexes beside
faiss, hnswlib, usearch and ScaNN on them in one run. Ends with tables that compare
them at equal recall, and a page of figures.

  (nothing)  Gemma 3 270M reading 32,768 tokens, its three global layers; at most ten minutes
             on two cores after the downloads
  --quick    the small sample in the repository; about a minute after the downloads
TEXT
}

PEERS=faiss-flat,faiss-ivf,faiss-hnsw,hnswlib,usearch,scann
SAMPLE=datasets/sample/smollm2-8k-pydoc.attn.h5
OUT=build/demo

# measure DATA: appends to the results. Searching is one thread, pinned to a CPU we may use.
measure() {
  local cpu
  cpu=$("$VENV/bin/python" -c 'import os; print(max(os.sched_getaffinity(0)))')
  step "Measuring on $1"
  "$VENV/bin/python" -m keyseek.bench --data "$1" --peers "$PEERS" --out "$OUT/results.jsonl" \
    --brief --rounds 2 --patience 2 --threads "$JOBS" --pin "$cpu"
}

quick=false
if flag_given --quick "$@"; then quick=true; fi

need_apt "${BUILD_PACKAGES[@]}"
ensure_venv
ensure_cmake
step 'Building keyseek; installing it and its peers into .venv'
install_package peers,report

if $quick; then
  data=("$SAMPLE:L15/K0")
else
  capture_gemma
  data=("$GEMMA:L5/K0" "$GEMMA:L11/K0" "$GEMMA:L17/K0")
fi

mkdir -p "$OUT"
rm -f "$OUT/results.jsonl"
for set in "${data[@]}"; do
  measure "$set"
done

step 'Results'
"$VENV/bin/python" -m keyseek.report "$OUT/results.jsonl" -o "$OUT/report.html" --table \
  --figures "$OUT/figures"
printf '\nFigures: %s, and as SVG files in %s\n' "$ROOT/$OUT/report.html" "$ROOT/$OUT/figures"

step 'SmolLM2 answers from a long document, with full attention and with retrieval'
install_capture_tools
if $quick; then answer=(--tokens 2048 --new 24); else answer=(); fi
"$VENV/bin/python" -m keyseek.demo "${answer[@]}"
