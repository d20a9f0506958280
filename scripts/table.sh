#!/usr/bin/env bash
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'TEXT'
usage: scripts/table.sh

Compares keyseek with its peers at equal recall and prints tables: steps with hot and cold caches,
single queries, the best recall with all prefill queries, on captures of Gemma 3 270M (32,768
tokens, layers 5, 11, 17) and SmolLM2 (8,192 tokens), and on the output layer of Gemma as a second
search problem. About an hour on two cores after the downloads; leave the machine alone meanwhile.
Rows go to build/table/results.jsonl; a run that was stopped goes on from there.
TEXT
}

OUT=build/table
OUTPUT_LAYER=build/data/gemma-output.h5

bench() {
  step "Measuring: $*"
  "$VENV/bin/python" -m keyseek.bench --pin 0 --out "$OUT/results.jsonl" "$@"
}

# head DATA: a head of a capture.
head_rows() {
  bench --data "$1" --cold --peers faiss-flat,faiss-ivf,faiss-hnsw,hnswlib,usearch,scann
  bench --data "$1" --single --ours projection --peers none
  bench --data "$1" --share 1 --ours projection --peers none --rounds 1 --spread 2
}

flag_given '' "$@" || true

need_apt "${BUILD_PACKAGES[@]}"
ensure_venv
ensure_cmake
step 'Building keyseek; installing it and its peers into .venv'
install_package peers,report
capture_gemma
capture_smollm2
if [[ ! -f $OUTPUT_LAYER ]]; then
  step 'Computing final hidden states and their next tokens'
  "$VENV/bin/python" datasets/output_layer.py --model gemma3-270m --text python3-doc \
    --out "$OUTPUT_LAYER"
fi

mkdir -p "$OUT"
for layer in 5 11 17; do head_rows "$GEMMA:L$layer/K0"; done
for head in L2/K0 L15/K1 L28/K2; do head_rows "$SMOLLM2:$head"; done
bench --data "$OUTPUT_LAYER" --peers faiss-ivf,scann

step 'Results'
"$VENV/bin/python" -m keyseek.report "$OUT/results.jsonl" -o "$OUT/report.html" --table
printf '\nFigures: %s\n' "$ROOT/$OUT/report.html"
