#!/usr/bin/env bash
# Sourced by quickstart.sh and run_tests.sh: makes the virtual environment that both work in.
# Every step leaves a stamp that holds the hash of what it depended on, so that a second run skips
# what is done, an interrupted one continues, and a changed requirements file is noticed.

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=${MMRSFM_VENV:-$REPO/.venv}
# Steps run in other folders: a relative place is relative to where the user is.
case $VENV in /*) ;; *) VENV=$PWD/$VENV ;; esac
# 8.5 remain; while torch is installed its wheels lie beside it.
MIN_DISK_GB=12

say() { printf '[mmrsfm] %s\n' "$*"; }
die() {
  printf '[mmrsfm] error: %s\n' "$*" >&2
  exit 1
}

# A Python 3.11 or 3.12 that can make a virtual environment and compile extensions.
find_python() {
  local candidate seen='' reason candidates=(python3.11 python3.12 python3 python)
  # A Python that the user names is the only candidate.
  [ -z "${MMRSFM_PYTHON:-}" ] || candidates=("$MMRSFM_PYTHON")
  for candidate in "${candidates[@]}"; do
    command -v "$candidate" >/dev/null 2>&1 || {
      [ -z "${MMRSFM_PYTHON:-}" ] || seen="$seen $candidate is no command;"
      continue
    }
    reason=$("$candidate" - 2>/dev/null <<'PY'
import os
import sys
import sysconfig

if sys.version_info[:2] not in ((3, 11), (3, 12)):
    print('is Python %d.%d' % sys.version_info[:2])
elif not os.path.exists(os.path.join(sysconfig.get_paths()['include'], 'Python.h')):
    print('has no Python.h (Debian: apt-get install python3-dev)')
else:
    try:
        import ensurepip
        import venv
        print('ok')
    except ImportError:
        print('cannot make virtual environments (Debian: apt-get install python3-venv)')
PY
    ) || reason='does not start'
    if [ "$reason" = ok ]; then
      PYTHON=$candidate
      return 0
    fi
    seen="$seen $candidate $reason;"
  done
  die "no usable Python 3.11 or 3.12 was found (${seen:- none on PATH;} set MMRSFM_PYTHON to name another)."
}

check_compiler() {
  local cxx=${CXX:-} dir
  [ -n "$cxx" ] || { command -v c++ >/dev/null 2>&1 && cxx=c++; } || cxx=g++
  command -v "${cxx%% *}" >/dev/null 2>&1 ||
    die "no C++ compiler was found ('${cxx%% *}' is no command); install one (Debian: apt-get install g++) or set CXX."
  dir=$(mktemp -d)
  printf '#include <vector>\nint main() { return std::vector<int>().size(); }\n' >"$dir/a.cpp"
  $cxx -std=c++17 "$dir/a.cpp" -o "$dir/a" >"$dir/log" 2>&1 || {
    rm -rf "$dir"
    die "the C++ compiler '$cxx' cannot build a C++17 program; install a complete one (Debian: apt-get install g++)."
  }
  rm -rf "$dir"
}

# Making the environment empties its folder first: never one that holds something else.
check_place() {
  local parent=$VENV
  if [ -e "$VENV" ] && [ ! -d "$VENV/.mmrsfm" ] &&
    { [ ! -d "$VENV" ] || [ -n "$(ls -A "$VENV")" ]; }; then
    die "$VENV exists and was not made by this script; remove it yourself, or choose another place with --venv or MMRSFM_VENV."
  fi
  while [ ! -d "$parent" ]; do parent=$(dirname "$parent"); done
  [ -w "$parent" ] || die "the folder $parent is not writable; choose another place with --venv or MMRSFM_VENV."
  [ -w "$REPO" ] || die "the folder $REPO is not writable, but mmrsfm is installed from it; clone it to a place of your own."
}

check_disk() {
  local parent=$VENV free need have=0
  while [ ! -d "$parent" ]; do parent=$(dirname "$parent"); done
  # What an interrupted run has installed already need not fit once more.
  [ ! -d "$VENV" ] || have=$(($(du -sk "$VENV" | cut -f1) / 1024 / 1024))
  need=$((MIN_DISK_GB > have ? MIN_DISK_GB - have : 1))
  free=$(($(df -Pk "$parent" | awk 'NR==2 {print $4}') / 1024 / 1024))
  [ "$free" -ge "$need" ] ||
    die "the environment needs about $need GB, but only $free GB are free on the disk of $parent; free some or choose another place with --venv or MMRSFM_VENV."
}

# $1: a Python that has pip, which a system's Python need not have.
check_network() {
  local dir log
  dir=$(mktemp -d)
  # One small package through the user's own pip configuration: mirrors and proxies are respected.
  if ! log=$("$1" -m pip download --quiet --no-deps --no-cache-dir --retries 1 --timeout 30 \
    -d "$dir" 'wheel==0.45.1' 2>&1); then
    rm -rf "$dir"
    die "the package registry cannot be reached (pip says: $(printf '%s' "$log" | grep -v WARNING | tail -n 1 | cut -c1-200)); check the network or pip's configuration."
  fi
  rm -rf "$dir"
}

hash_of() { cat "$@" 2>/dev/null | cksum | tr -d ' '; }

stamp_is() { [ "$(cat "$VENV/.mmrsfm/$1" 2>/dev/null)" = "$2" ]; }
stamp() {
  mkdir -p "$VENV/.mmrsfm"
  printf '%s' "$2" >"$VENV/.mmrsfm/$1"
}

# Ends a process group, asking first: pip and compilers then remove what is half done.
end_group() {
  local second
  trap '' INT TERM HUP
  kill -INT -- "-$1" 2>/dev/null || true
  for second in 1 2 3 4 5 6 7 8 9 10; do
    kill -0 -- "-$1" 2>/dev/null || break
    sleep 1
  done
  kill -KILL -- "-$1" 2>/dev/null || true
  say 'interrupted; run the same command again to continue.'
  exit 130
}

# Runs a long command with its output in a log and one line of progress every 20 seconds.
# $1: what it is; $2: a shell expression that prints how far it is; the rest: the command.
with_progress() {
  local what=$1 probe=$2 log pid start status=0 last tmp=$VENV/.mmrsfm/tmp
  shift 2
  rm -rf "$tmp"
  mkdir -p "$VENV/.mmrsfm/logs" "$tmp"
  log="$VENV/.mmrsfm/logs/$(printf '%s' "$what" | tr -c 'A-Za-z0-9\n' '_').log"
  start=$(date +%s)
  last=$start
  # A process group of its own, so that an interruption reaches pip's and the compiler's children.
  # Gigabytes of wheels are unpacked: on the disk that was checked, not in a small /tmp.
  set -m
  TMPDIR=$tmp "$@" >"$log" 2>&1 </dev/null &
  pid=$!
  set +m
  # shellcheck disable=SC2064
  trap "end_group $pid" INT TERM HUP
  while kill -0 "$pid" 2>/dev/null; do
    sleep 1
    if [ $(($(date +%s) - last)) -ge 20 ]; then
      last=$(date +%s)
      say "  $what: $((last - start)) s $(eval "$probe" 2>/dev/null)"
    fi
  done
  wait "$pid" || status=$?
  trap - INT TERM HUP
  rm -rf "$tmp"
  if [ "$status" -ne 0 ]; then
    tail -n 15 "$log" >&2
    die "$what failed (exit $status); the whole output is in $log. Run the same command again to continue."
  fi
  say "  $what: done in $(($(date +%s) - start)) s"
}

pip_install() {
  "$VENV/bin/python" -m pip install --disable-pip-version-check --no-input \
    -c "$REPO/requirements/constraints.txt" "$@"
}

# Empties the folder, unless something else is in it, and makes the virtual environment anew.
make_venv() {
  check_place
  mkdir -p "$VENV/.mmrsfm" || die "the folder $VENV cannot be made."
  # The mark of check_place stays while the rest goes, so that an interrupted run can continue.
  find "$VENV" -mindepth 1 -maxdepth 1 ! -name .mmrsfm -exec rm -rf {} +
  rm -rf "$VENV"/.mmrsfm/*
  "$PYTHON" -m venv "$VENV" || die "'$PYTHON -m venv $VENV' failed."
}

compile_mmcv() {
  # -g0: debug symbols of 78 template-heavy files double the time and make the library 12 times larger.
  CFLAGS="${MMRSFM_CFLAGS:--O2 -g0}" MAX_JOBS="${MAX_JOBS:-$(nproc)}" \
    pip_install --no-build-isolation "$(grep '^[^#]*mmcv' "$REPO/requirements/mminstall.txt")"
}

# The step that both commands share.
ensure_env() {
  local req=$REPO/requirements key cons
  # Of what torch and mmcv are built with: another pin does not compile mmcv anew.
  cons=$(grep -iE '^(onedl-|torch|numpy|setuptools|wheel|packaging|ninja|cython)' \
    "$req/constraints.txt" | cksum | tr -d ' ')
  key="$cons-$(hash_of "$req"/*.txt "$REPO/setup.py" "$REPO/pyproject.toml" "$REPO/tools/env.sh")-$REPO"
  if stamp_is all "$key" && [ -x "$VENV/bin/python" ]; then
    return 0
  fi
  local fresh=1
  stamp_is mm "$(hash_of "$req/mminstall.txt")-$cons" && fresh=0
  find_python
  if [ "$fresh" = 1 ]; then
    check_place
    check_compiler
    check_disk
    say "setting up $VENV: about 5 GB are downloaded (minutes), and mmcv's operators are compiled once"
    say "(about 5 minutes on two cores; a line every 20 seconds shows that it is alive)."
  fi
  if [ ! -x "$VENV/bin/python" ] || ! stamp_is venv ok; then
    say "making the virtual environment with $PYTHON"
    make_venv
    stamp venv ok
  fi
  [ "$fresh" = 0 ] || check_network "$VENV/bin/python"
  if ! stamp_is build "$(hash_of "$req/build.txt")-$cons"; then
    with_progress 'install build tools' true pip_install --upgrade pip -r "$req/build.txt"
    stamp build "$(hash_of "$req/build.txt")-$cons"
  fi
  if ! stamp_is torch "$(hash_of "$req/torch.txt")-$cons"; then
    with_progress 'install torch' 'du -sh "$VENV" | cut -f1' pip_install -r "$req/torch.txt"
    stamp torch "$(hash_of "$req/torch.txt")-$cons"
  fi
  if ! stamp_is mmcv "$(hash_of "$req/mminstall.txt")-$cons"; then
    with_progress 'compile mmcv' \
      'echo "($(find "$VENV/.mmrsfm/tmp" -name "*.o" | wc -l) of 78 files compiled)"' compile_mmcv
    stamp mmcv "$(hash_of "$req/mminstall.txt")-$cons"
  fi
  if ! stamp_is mm "$(hash_of "$req/mminstall.txt")-$cons"; then
    with_progress 'install the OpenMMLab packages' true \
      pip_install --no-build-isolation -r "$req/mminstall.txt"
    stamp mm "$(hash_of "$req/mminstall.txt")-$cons"
  fi
  with_progress 'install mmrsfm' true install_mmrsfm
  with_progress 'check the installation' true \
    env -C "$VENV" "$VENV/bin/python" -m mmrsfm.utils.collect_env --check
  stamp all "$key"
}

install_mmrsfm() {
  local req=$REPO/requirements
  pip_install -r "$req/runtime.txt" -r "$req/tests.txt" -r "$req/optional.txt" \
    -r "$req/docs.txt" &&
    pip_install --no-build-isolation --no-deps -e "$REPO"
}
