#!/usr/bin/env bash
# Trains under Slurm.
#   bash tools/slurm_train.sh [--requeue] PARTITION JOB_NAME CONFIG [WORK_DIR] [arguments ...]
# The arguments are those of train.py.
# GPUS [8], GPUS_PER_NODE [8], CPUS_PER_TASK [5] and SRUN_ARGS say what to ask for; GPUS=0 trains on
# CPUs, with NTASKS [1] processes and, optionally, NTASKS_PER_NODE. PYTHON chooses the interpreter.
# --requeue submits a job that is queued again, and continues, when its time is over, when its nodes
# are taken away, or when a process is killed; see tools/slurm_job.sh and docs/devices.md.
set -eu
REQUEUE=0
ARGUMENTS=()
for argument in "$@"; do
  if [ "$argument" = --requeue ]; then REQUEUE=1; else ARGUMENTS+=("$argument"); fi
done
set -- ${ARGUMENTS[@]+"${ARGUMENTS[@]}"}
if [ $# -lt 3 ]; then
  sed -n '2,8s/^# //p' "${BASH_SOURCE[0]}" >&2
  exit 2
fi
PARTITION=$1
JOB_NAME=$2
CONFIG=$3
shift 3
WORK_DIR=()
if [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; then
  if [ -n "$1" ]; then WORK_DIR=(--work-dir "$1"); fi
  shift
fi
export REQUEUE
exec bash "$(dirname "${BASH_SOURCE[0]}")/slurm_run.sh" train.py "$PARTITION" "$JOB_NAME" \
  "$CONFIG" ${WORK_DIR[@]+"${WORK_DIR[@]}"} "$@"
