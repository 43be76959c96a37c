#!/usr/bin/env bash
# Shared by slurm_train.sh and slurm_test.sh: SCRIPT PARTITION JOB_NAME [arguments ...] under srun
# or, with REQUEUE=1, in a job that is queued again when it was interrupted.
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
SHARE+=(--cpus-per-task="${CPUS_PER_TASK:-5}")
export PYTHONPATH="$HERE/..${PYTHONPATH:+:$PYTHONPATH}"
COMMAND=("${PYTHON:-python}" -u "$HERE/$SCRIPT" "$@" --launcher slurm)

if [ "${REQUEUE:-0}" = 1 ]; then
  for argument in "$@"; do
    case $argument in
      --resume | --resume=*)
        echo "--requeue continues from the work folder by itself: leave $argument out. To begin" \
          'with the weights of another run, use --cfg-options load_from=PATH.' >&2
        exit 2
        ;;
    esac
  done
  # USR1 goes to the processes of the training, not to the script: they save, and end.
  # shellcheck disable=SC2086
  exec sbatch --partition="$PARTITION" --job-name="$JOB_NAME" "${SHARE[@]}" --requeue \
    --signal=USR1@"${SECONDS_TO_SAVE:-180}" --open-mode=append ${SRUN_ARGS:-} \
    "$HERE/slurm_job.sh" "${COMMAND[@]}" --resume auto
fi
# SRUN_ARGS holds several words on purpose.
# shellcheck disable=SC2086
exec srun --partition="$PARTITION" --job-name="$JOB_NAME" "${SHARE[@]}" --kill-on-bad-exit=1 \
  ${SRUN_ARGS:-} "${COMMAND[@]}"
