#!/usr/bin/env bash
# Make the project's own virtual environments from the hash-pinned lock files; nothing if they are up to date.
#
#   ./setup_env.sh py37    .venv        CPython 3.7: everything that the demo, the tests and a worker need
#   ./setup_env.sh tools   .venv-tools  a newer Python: linters, and an S3 server for the tests
#   ./setup_env.sh bench   build/bench/packages  what only the benchmark's other systems need: pandas
#
# PYTHON37 names the interpreter to use. INSTALLER=pip does without uv.
set -euo pipefail
cd "$(dirname "$0")"

say() { printf '%s\n' "$*" >&2; }

works() { "$1" -c "import sys; sys.exit(not ($2))" >/dev/null 2>&1; }

# The first of the candidates on stdin that runs and fulfils the condition.
first_that_works() {
  local candidate
  while read -r candidate; do
    if [ -n "$candidate" ] && works "$candidate" "$1"; then
      printf '%s\n' "$candidate"
      return 0
    fi
  done
  return 1
}

pyenv_pythons() {
  local root=${PYENV_ROOT:-$(pyenv root 2>/dev/null || true)}
  for root in "$root" "$HOME/.pyenv"; do
    [ -d "$root/versions" ] && ls -d "$root"/versions/$1/bin/python 2>/dev/null | sort -rV || true
  done
}

find_newer() {
  { printf '%s\n' python3 python3.13 python3.12 python3.11 python3.10 python3.9; pyenv_pythons '3.1[0-9]*'; } |
    first_that_works 'sys.version_info[:2] >= (3, 9)'
}

# uv: the one on PATH, else one of our own from requirements/installer.lock; nothing if neither.
find_uv() {
  local python
  [ "${INSTALLER:-uv}" = uv ] || return 1
  if command -v uv 2>/dev/null; then return 0; fi
  python=$(find_newer) || return 1
  if [ ! -x .venv-installer/bin/uv ]; then
    "$python" -m venv .venv-installer >&2 &&
      .venv-installer/bin/python -m pip install --quiet --disable-pip-version-check \
        --require-hashes -r requirements/installer.lock >&2 || return 1
  fi
  printf '%s\n' "$PWD/.venv-installer/bin/uv"
}

find_python37() {
  local uv
  if { printf '%s\n' "${PYTHON37:-}" python3.7 python3 python; pyenv_pythons '3.7*'; } |
    first_that_works 'sys.version_info[:2] == (3, 7)'; then return 0; fi
  if uv=$(find_uv); then
    say "No CPython 3.7 on PATH or in pyenv; asking uv for one."
    "$uv" python install --quiet 3.7 >&2 && "$uv" python find 3.7 && return 0
  fi
  say "CPython 3.7 not found, and TensorFlow 1.15 runs on no newer one. Any of these will do:"
  say "  - python3.7 on PATH, or PYTHON37=/path/to/python3.7 make ..."
  say "  - pyenv install 3.7"
  say "  - uv python install 3.7"
  return 1
}

# install VENV LOCK: fill a fresh virtual environment with exactly what the lock file lists.
install() {
  local venv=$1 lock=$2 uv
  if uv=$(find_uv); then
    "$uv" pip install --quiet --python "$venv/bin/python" --no-build-isolation --require-hashes -r "$lock"
  else
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
      --no-build-isolation --require-hashes -r "$lock"
  fi
}

# up_to_date VENV FILES...: whether the environment was made from exactly these files.
stamp_of() { cat "$@" | sha256sum | cut -d' ' -f1; }
up_to_date() { local venv=$1; shift; [ "$(cat "$venv/.made-from" 2>/dev/null)" = "$(stamp_of "$@")" ]; }

case "${1:-}" in
  py37)
    files=(requirements/build.lock requirements/py37-dev.lock)
    up_to_date .venv "${files[@]}" && exit 0
    python=$(find_python37)
    say "Installing the Python 3.7 stack into .venv (about 1.5 GB, once) ..."
    rm -rf .venv
    "$python" -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/build.lock
    install .venv requirements/py37-dev.lock
    stamp_of "${files[@]}" > .venv/.made-from
    ;;
  tools)
    files=(requirements/tools.lock)
    up_to_date .venv-tools "${files[@]}" && exit 0
    python=$(find_newer) || { say "No Python 3.9 or newer for the linters and the S3 server of the tests."; exit 1; }
    say "Installing the linters and the test S3 server into .venv-tools ..."
    rm -rf .venv-tools
    "$python" -m venv .venv-tools
    install .venv-tools requirements/tools.lock
    stamp_of "${files[@]}" > .venv-tools/.made-from
    ;;
  bench)
    files=(requirements/bench.lock)
    folder=build/bench/packages
    up_to_date "$folder" "${files[@]}" && exit 0
    say "Installing what the benchmark compares with into $folder ..."
    rm -rf "$folder"
    # Its dependencies but pandas and pytz are in .venv, in the very same versions.
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps \
      --target "$folder" -r requirements/bench.lock
    rm -rf "$folder"/numpy* "$folder"/six* "$folder"/dateutil "$folder"/python_dateutil*
    stamp_of "${files[@]}" > "$folder/.made-from"
    ;;
  *)
    say "usage: $0 py37|tools|bench"
    exit 2
    ;;
esac
