#!/usr/bin/env bash
# Tests under Slurm.
#   bash tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [arguments of test.py ...]
# GPUS [8], GPUS_PER_NODE [8], CPUS_PER_TASK [5] and SRUN_ARGS say what to ask for; GPUS=0 tests on
# CPUs, with NTASKS [1] processes and, optionally, NTASKS_PER_NODE. PYTHON chooses the interpreter.
set -eu
if [ $# -lt 4 ]; then
  sed -n '2,5s/^# //p' "${BASH_SOURCE[0]}" >&2
  exit 2
fi
exec bash "$(dirname "${BASH_SOURCE[0]}")/slurm_run.sh" test.py "$@"
