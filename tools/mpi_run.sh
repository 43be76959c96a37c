#!/usr/bin/env bash
# Shared by mpi_train.sh and mpi_test.sh: SCRIPT NPROC [arguments of the script ...] under mpirun.
set -eu
SCRIPT=$1
NPROC=$2
shift 2
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

case $NPROC in
  '' | *[!0-9]* | 0)
    echo "GPUS must be a number of processes in all, got '$NPROC'" >&2
    exit 2
    ;;
esac
if ! command -v mpirun >/dev/null; then
  echo 'mpirun is not installed here (Debian: apt-get install openmpi-bin); tools/dist_train.sh needs none.' >&2
  exit 2
fi
EXPORT=()
# Options and exports of Open MPI; other implementations hand the environment on by themselves.
if mpirun --version 2>/dev/null | grep -q 'Open MPI'; then
  EXPORT=(-x PYTHONPATH)
  for NAME in MASTER_ADDR MASTER_PORT CUDA_VISIBLE_DEVICES OMP_NUM_THREADS; do
    if [ -n "${!NAME+set}" ]; then EXPORT+=(-x "$NAME"); fi
  done
  # One process a GPU, with threads of its own: not pinned to one core.
  EXPORT+=(--bind-to none)
fi
export PYTHONPATH="$HERE/..${PYTHONPATH:+:$PYTHONPATH}"
# MPIRUN_ARGS holds several words on purpose.
# shellcheck disable=SC2086
exec mpirun -n "$NPROC" ${EXPORT[@]+"${EXPORT[@]}"} ${MPIRUN_ARGS:-} \
  "${PYTHON:-python}" -u "$HERE/$SCRIPT" "$@" --launcher mpi
