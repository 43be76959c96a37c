#!/usr/bin/env bash
# Passes the tests: sets up the environment if needed, then pytest. Arguments go to pytest;
# --all adds the slow matrix.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # started by sh
set -u
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
case "${1:-}" in
  -h | --help)
    echo "usage: bash tools/run_tests.sh [--all] [pytest arguments]"
    exit 0
    ;;
esac
ensure_env
cd "$REPO" || exit 1
# One process per core, each with one thread, is the quickest on small models. By file: module
# fixtures run once, and there is one Slurm.
workers=$(nproc)
[ "$workers" -gt 4 ] && workers=4
case " $* " in
  *' -n '* | *' -n'[0-9]* | *' -p no:xdist '* | *' --pdb '*) set -- "$@" ;;
  *) set -- -n "$workers" --dist loadfile "$@" ;;
esac
exec "$VENV/bin/python" -m pytest "$@"
