#!/usr/bin/env bash
# Installs what the launcher tests use, where it may: a local Slurm, munge and Open MPI, as root on
# Debian or Ubuntu. Elsewhere, or where they are there already, it does nothing; the tests then say
# why they are skipped. Nothing is started or enabled.
set -eu
SLURM=(slurmctld slurmd slurm-client munge)

present() {
  for program in slurmctld slurmd srun munged mpirun; do
    PATH="$PATH:/usr/sbin:/sbin" command -v "$program" >/dev/null || return 1
  done
}

if present; then
  echo 'Slurm, munge and Open MPI are installed.'
  exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo 'Not root on a Debian-like system: the tests of Slurm and MPI will be skipped.'
  exit 0
fi
export DEBIAN_FRONTEND=noninteractive
# Packages of daemons start them on installation; in a container or on a workstation they must not.
POLICY=/usr/sbin/policy-rc.d
if [ ! -e "$POLICY" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$POLICY"
  chmod +x "$POLICY"
  trap 'rm -f "$POLICY"' EXIT
fi
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${SLURM[@]}"
apt-get install -y -qq --no-install-recommends openmpi-bin ||
  echo 'Open MPI could not be installed: its test imitates mpirun.'
