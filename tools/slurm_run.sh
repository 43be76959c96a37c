#!/usr/bin/env bash
# Shared by slurm_train.sh and slurm_test.sh: SCRIPT PARTITION JOB_NAME [arguments ...] under srun.
set -eu
SCRIPT=$1
PARTITION=$2
JOB_NAME=$3
shift 3
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
GPUS=${GPUS:-8}

if ! command -v srun >/dev/null; then
  echo 'srun is not installed here: run this on a machine of the cluster.' >&2
  exit 2
fi
if [ "$GPUS" = 0 ]; then
  NTASKS=${NTASKS:-1}
  SHARE=(--ntasks="$NTASKS")
  if [ -n "${NTASKS_PER_NODE:-}" ]; then SHARE+=(--ntasks-per-node="$NTASKS_PER_NODE"); fi
  export CUDA_VISIBLE_DEVICES=
else
  GPUS_PER_NODE=${GPUS_PER_NODE:-$((GPUS < 8 ? GPUS : 8))}
  SHARE=(--gres=gpu:"$GPUS_PER_NODE" --ntasks="$GPUS" --ntasks-per-node="$GPUS_PER_NODE")
fi
export PYTHONPATH="$HERE/..${PYTHONPATH:+:$PYTHONPATH}"
# SRUN_ARGS holds several words on purpose.
# shellcheck disable=SC2086
exec srun --partition="$PARTITION" --job-name="$JOB_NAME" "${SHARE[@]}" \
  --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
  "${PYTHON:-python}" -u "$HERE/$SCRIPT" "$@" --launcher slurm
