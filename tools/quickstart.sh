#!/usr/bin/env bash
# From a clean clone to a result: sets up the environment, then pretrains, fine-tunes, tests and
# draws on a real Sentinel-2 scene. Run it again to continue where it stopped.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # started by sh
set -u

usage() {
  cat <<'TEXT'
usage: bash tools/quickstart.sh [--venv DIR] [--skip-train] [--seeds N] [--help]

Sets up a virtual environment (once: about 12 GB and 10 to 15 minutes, of which 5 compile mmcv's
operators), fetches a Sentinel-2 scene and runs the main job on it in less than 8 minutes on two
cores: pretraining, fine-tuning, testing, drawing. What is done is skipped; what was interrupted
goes on.

  --venv DIR     place of the virtual environment (default: $MMRSFM_VENV, else .venv)
  --skip-train   environment and data only
  --seeds N      fine-tuning runs from pretrained and from random weights (default: 3)

MMRSFM_PYTHON names the Python (3.11 or 3.12) to use.
TEXT
}

job=()
while [ $# -gt 0 ]; do
  case "$1" in
    -h | --help)
      usage
      exit 0
      ;;
    --venv)
      [ $# -ge 2 ] || { usage >&2; exit 2; }
      export MMRSFM_VENV="$2"
      shift 2
      ;;
    --skip-train)
      job+=(--data-only)
      shift
      ;;
    --seeds)
      # Here, not by the job: it starts after the set-up.
      case "${2:-}" in
        '' | *[!0-9]* | 0)
          echo "quickstart.sh: --seeds needs a number from 1, got '${2:-}'" >&2
          exit 2
          ;;
      esac
      job+=(--seeds "$2")
      shift 2
      ;;
    *)
      echo "quickstart.sh: unknown argument '$1'" >&2
      usage >&2
      exit 2
      ;;
  esac
done

. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
ensure_env
say "environment: $VENV"
exec "$VENV/bin/python" "$REPO/tools/demo/sentinel2_job.py" ${job[@]+"${job[@]}"}
