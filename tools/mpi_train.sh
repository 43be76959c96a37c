#!/usr/bin/env bash
# Trains under mpirun (Open MPI), one process a GPU, or a CPU process.
#   bash tools/mpi_train.sh CONFIG GPUS [arguments of train.py ...]
# GPUS is the number of processes in all. MPIRUN_ARGS holds further options of mpirun, such as
# "--hostfile FILE"; on several machines set MASTER_ADDR to the host of rank 0, and MASTER_PORT.
# CUDA_VISIBLE_DEVICES= (empty) trains on the CPU. PYTHON chooses the interpreter.
set -eu
if [ $# -lt 2 ]; then
  sed -n '2,6s/^# //p' "${BASH_SOURCE[0]}" >&2
  exit 2
fi
exec bash "$(dirname "${BASH_SOURCE[0]}")/mpi_run.sh" train.py "$2" "$1" "${@:3}"
