#!/usr/bin/env bash
# One command for a machine with an NVIDIA GPU, in under eight minutes: the tests that a GPU can
# change, then a training step of every recipe with its memory and its images a second.
#
#   tools/on_gpu.sh              writes build/gpu.json, and all that was printed to build/gpu.txt
#   tools/on_gpu.sh --cpu        a rehearsal where there is none
#
# Settings: OUT=folder of the results; PYTHON=which Python (default: .venv's, else python3);
# WHEELS=folder of wheels for what that Python lacks (diffusers, lpips …); they are not installed,
# only unpacked for this run.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
OUT=${OUT:-build}
if [ -z "${PYTHON:-}" ]; then
  PYTHON=python3
  if [ -x .venv/bin/python ]; then PYTHON=.venv/bin/python; fi
fi
mkdir -p "$OUT"
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
if [ -n "${WHEELS:-}" ]; then
  "$PYTHON" -m pip install --quiet --no-index --no-deps --target "$site" "$WHEELS"/*.whl || exit 1
fi
export PYTHONPATH="$PWD:$site${PYTHONPATH:+:$PYTHONPATH}"
"$PYTHON" -u tools/gpu_report.py "$OUT/gpu.json" "$@" 2>&1 | tee "$OUT/gpu.txt"
