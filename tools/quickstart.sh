#!/usr/bin/env bash
# From a clean clone to a result: sets up the environment, then pretrains, fine-tunes, tests and
# draws on a real Sentinel-2 scene, or does one of nine tasks on real imagery. Run it again to
# continue where it stopped.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # started by sh
set -u

usage() {
  cat <<'TEXT'
usage: bash tools/quickstart.sh [--task TASK | --scene] [--venv DIR] [--skip-train] [--seeds N] [--help]

Sets up a virtual environment (once: about 12 GB and 10 to 15 minutes, of which 5 compile mmcv's
operators), fetches a Sentinel-2 scene and runs the main job on it in less than 8 minutes on two
cores: pretraining, fine-tuning, testing, drawing. What is done is skipped; what was interrupted
goes on.

  --task TASK    instead of that job, fine-tune a small ViT + RVSA for one task, test it and draw
                 its predictions beside the truth, in a few minutes:
                   cls  classes of Sentinel-2 tiles, 13 bands
                   hbb  trees in airborne images, horizontal boxes (NEON)
                   obb  buildings in a satellite scene, oriented boxes (SpaceNet)
                   seg  masks of the same buildings
                   cd   change of the same buildings, SIMULATED
                 or pretrain a small MaRS on optical and SAR images of one place, and find the tiles of
                 one by those of the other (SpaceNet 6, Rotterdam):
                   mars
                 or pretrain a small SAR-W-MixMAE on two polarisations of that SAR image, a stand-in for
                 Sentinel-1, and draw what it reconstructs and how each pixel weighs:
                   sarw
                 or pretrain a small MP-MAE on the Sentinel-2 scene and what is known of it, in the form of
                 MMEarth, and name the class of tiles by a linear layer on the frozen encoder:
                   mpmae
                 or pretrain a small ViT + RVSA as MTP does, for classes of pixels, masks and oriented boxes at
                 once, on the buildings and the trees of obb and hbb, in the form of SAMRS:
                   mtp
  --scene        after that job (which is run if it was not), the map of the whole scene, georeferenced,
                 with a picture and a page for a browser; and, where hbb, obb and cd were run, those of
                 a whole scene of trees, of buildings, and of change
  --venv DIR     place of the virtual environment (default: $MMRSFM_VENV, else .venv)
  --skip-train   environment and data only
  --seeds N      fine-tuning runs from pretrained and from random weights (default: 3); with --task
                 only for mars, mpmae (default: 3) and sarw (2): pretraining runs

MMRSFM_PYTHON names the Python (3.11 or 3.12) to use.
TEXT
}

job=()
task=''
scene=''
seeds=''
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
    --task)
      case "${2:-}" in
        cls | hbb | obb | seg | cd | mars | sarw | mpmae | mtp) task="$2" ;;
        *)
          echo "quickstart.sh: --task needs one of cls, hbb, obb, seg, cd, mars, sarw, mpmae, mtp, got '${2:-}'" >&2
          exit 2
          ;;
      esac
      shift 2
      ;;
    --scene)
      scene=yes
      shift
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
      seeds="$2"
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

if [ -n "$scene" ] && [ -n "$task$seeds" ]; then
  echo 'quickstart.sh: --scene is for models that are there: not with --task or --seeds' >&2
  exit 2
fi
case "$task" in
  '' | mars | sarw | mpmae) ;;
  *)
    if [ -n "$seeds" ]; then
      echo 'quickstart.sh: --seeds is for the job without --task, and for --task mars, sarw, mpmae' >&2
      exit 2
    fi
    ;;
esac

. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
ensure_env
say "environment: $VENV"
if [ -n "$scene" ]; then
  exec "$VENV/bin/python" "$REPO/tools/demo/scene_job.py" ${job[@]+"${job[@]}"}
fi
case "$task" in
  mars | sarw | mpmae | mtp)
    exec "$VENV/bin/python" "$REPO/tools/demo/${task}_job.py" ${job[@]+"${job[@]}"}
    ;;
esac
if [ -n "$task" ]; then
  exec "$VENV/bin/python" "$REPO/tools/demo/tasks.py" "$task" ${job[@]+"${job[@]}"}
fi
exec "$VENV/bin/python" "$REPO/tools/demo/sentinel2_job.py" ${job[@]+"${job[@]}"}
