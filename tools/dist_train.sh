#!/usr/bin/env bash
# Trains on several GPUs, or CPU processes, of one or more machines.
#   bash tools/dist_train.sh CONFIG GPUS [arguments of train.py ...]
# On several machines run it on each, with NNODES, NODE_RANK (0, 1, ...), MASTER_ADDR and PORT set.
# CUDA_VISIBLE_DEVICES= (empty) trains on the CPU. PYTHON chooses the interpreter.
set -eu
if [ $# -lt 2 ]; then
  sed -n '2,5s/^# //p' "${BASH_SOURCE[0]}" >&2
  exit 2
fi
exec bash "$(dirname "${BASH_SOURCE[0]}")/dist_run.sh" train.py "$2" "$1" "${@:3}"
