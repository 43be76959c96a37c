#!/usr/bin/env bash
# Shared by dist_train.sh and dist_test.sh: SCRIPT NPROC [arguments of the script ...] under torchrun.
set -eu
SCRIPT=$1
NPROC=$2
shift 2
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
NNODES=${NNODES:-1}

case $NPROC in
  '' | *[!0-9]* | 0)
    echo "GPUS must be a number of processes per machine, got '$NPROC'" >&2
    exit 2
    ;;
esac
if [ "$NNODES" = 1 ] && [ -z "${PORT:-}" ]; then
  # A free port, so that several runs fit on one machine.
  RENDEZVOUS=(--standalone)
else
  RENDEZVOUS=(--node_rank="${NODE_RANK:-0}" --master_addr="${MASTER_ADDR:-127.0.0.1}"
    --master_port="${PORT:-29500}")
fi
export PYTHONPATH="$HERE/..${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python}" -m torch.distributed.run --nnodes="$NNODES" --nproc_per_node="$NPROC" \
  "${RENDEZVOUS[@]}" "$HERE/$SCRIPT" "$@" --launcher pytorch
