# shellcheck shell=bash
# What infra/bootstrap.sh and infra/destroy.sh share: running commands, or printing them.
# With DRY_RUN=yes nothing is run and nothing is asked: each command is printed as it would be for an empty project.

if [[ ${BASH_VERSINFO[0]} -lt 5 ]]; then
  echo "${0##*/} needs bash 5 or newer" >&2
  exit 2
fi
DRY_RUN=${DRY_RUN:-no}

fail() {
  printf '%s: %s\n' "${0##*/}" "$1" >&2
  exit 2
}

say() { printf '\n# %s\n' "$1"; }

run() {
  printf '%s\n' "$(quoted "$@")"
  [[ $DRY_RUN == yes ]] || "$@"
}

# A new service account or right takes minutes to be known everywhere, a new log-based metric up to ten, says the API that
# refuses an alert on it: what names one is tried again for a quarter of an hour. A mistake takes as long to be told.
persist() {
  local attempt
  for attempt in {1..45}; do
    "$@" && return
    [[ $attempt == 45 ]] || sleep "${RETRY_SECONDS:-20}"
  done
  return 1
}

# Single quotes only where a shell needs them, so that a line can be read, pasted and linted.
quoted() {
  local word text=
  for word in "$@"; do
    if [[ $word =~ ^[A-Za-z0-9_@%+=:,./-]+$ ]]; then
      text+=" $word"
    else
      text+=" '${word//\'/\'\\\'\'}'"
    fi
  done
  printf '%s' "${text# }"
}

there() { [[ $DRY_RUN == no ]] && "$@" >/dev/null 2>&1; }

# What a command answers, or the second argument in a dry run.
ask() {
  local instead=$1
  shift
  if [[ $DRY_RUN == yes ]]; then printf '%s' "$instead"; else "$@"; fi
}

# Steps of `python -m esteira.topology_commands`, from stdin: what tells of it, what creates it, what updates it. Tab is
# white space to `read`, which would swallow an empty first field, so that the fields are cut out by hand.
run_steps() {
  local line exists create update
  local -a told made changed
  while IFS= read -r line; do
    exists=${line%%$'\t'*} line=${line#*$'\t'}
    create=${line%%$'\t'*} update=${line#*$'\t'}
    eval "told=($exists) made=($create) changed=($update)" # quoted by Python's shlex
    if [[ ${#told[@]} -gt 0 ]] && ! there "${told[@]}"; then
      if [[ ${#made[@]} -gt 0 ]]; then
        persist run "${made[@]}" </dev/null
      elif [[ $DRY_RUN == yes ]]; then
        run "${changed[@]}" </dev/null
      fi
    elif [[ ${#changed[@]} -gt 0 ]]; then
      persist run "${changed[@]}" </dev/null
    fi
  done
}

choose_python() {
  PYTHON=${PYTHON:-$ROOT/.venv/bin/python}
  [[ -x $PYTHON ]] || PYTHON=$(command -v "$PYTHON" || true)
  [[ -n $PYTHON ]] || fail "no Python with Esteira: run make install, or set PYTHON"
}
