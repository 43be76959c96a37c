#!/usr/bin/env bash
# Tests under mpirun (Open MPI), one process a GPU, or a CPU process.
#   bash tools/mpi_test.sh CONFIG CHECKPOINT GPUS [arguments of test.py ...]
# See mpi_train.sh for the environment.
set -eu
if [ $# -lt 3 ]; then
  sed -n '2,4s/^# //p' "${BASH_SOURCE[0]}" >&2
  exit 2
fi
exec bash "$(dirname "${BASH_SOURCE[0]}")/mpi_run.sh" test.py "$3" "$1" "$2" "${@:4}"
