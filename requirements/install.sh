#!/usr/bin/env bash
# Makes .venv and installs slicfast with one stack in it; called by the Makefile, does nothing where all is in place.
#   STACK=auto|cpu|cuda12|cuda13   auto: what .venv already holds, else what the NVIDIA driver can run
#   PYTHON=python3.12              default: the first of python3, python3.13, 3.12, 3.11 that is 3.11 or later
#   TORCH_INDEX=URL                another package index for torch (PyTorch publishes one for CPUs)
set -euo pipefail
cd "$(dirname "$0")/.."

stack=${STACK:-auto}
venv=.venv
stamp=$venv/.slicfast-installed
log=$venv/install.log

say() { printf '==> %s\n' "$*"; }
fail() { printf 'make: %s\n' "$*" >&2; exit 1; }

driver_stack() {
    local version
    version=$(nvidia-smi 2>/dev/null | sed -nE 's/.*CUDA[A-Za-z ]*Version: *([0-9]+).*/\1/p' | head -n 1) || true
    case $version in
        "") echo cpu ;;
        12) echo cuda12 ;;
        1[3-9]|[2-9][0-9]) echo cuda13 ;;
        *) echo cpu ;;
    esac
}

# 0 where "$1" is a Python this project can use; otherwise says why not. A pyenv shim may be there and yet not run.
usable() {
    command -v "$1" >/dev/null 2>&1 || { echo "$1: not found"; return 1; }
    "$1" -c 'pass' >/dev/null 2>&1 || { echo "$1: does not run"; return 1; }
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$1: $("$1" --version 2>&1)"; return 1; }
    "$1" -c 'import venv, ensurepip' >/dev/null 2>&1 ||
        { echo "$1: its venv module is missing (on Debian and Ubuntu: apt install $("$1" -c \
            'import sys; print("python%d.%d-venv" % sys.version_info[:2])'))"; return 1; }
}

find_python() {
    local candidate reason reasons=""
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if reason=$(usable "$candidate"); then
            command -v "$candidate"
            return
        fi
        reasons+=$'\n'"  $reason"
    done
    fail "no Python 3.11 or later to work with; name one with make PYTHON=/path/to/python. Tried:$reasons"
}

# Made anew where it does not run, and for another stack: their libraries overwrite one another's files.
make_venv() {
    local python
    if [ "${held:-$stack}" = "$stack" ] &&
        $venv/bin/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
    then return; fi
    [ -n "$held" ] && [ "$held" != "$stack" ] && say "$venv holds the $held stack; it gives way to $stack"
    python=$(find_python)
    say "making $venv with $("$python" --version 2>&1) ($python)"
    "$python" -m venv --clear $venv
}

# Where the index has no CPU build of this torch, pip takes the general one: it works, but brings CUDA along.
warn_of_large_torch() {
    local wanted found
    [ "$(uname -sm)" = "Linux x86_64" ] && [ -z "${TORCH_INDEX:-}" ] || return 0
    $venv/bin/python -m pip show -q torch >/dev/null 2>&1 && return
    wanted=$(sed -nE 's/^torch==(.*)$/\1/p' requirements/constraints-cpu.txt)
    found=$($venv/bin/python -m pip index versions torch 2>/dev/null || true)
    [[ $found == *"$wanted+cpu"* ]] && return
    say "your package index has no CPU-only torch $wanted for this Python: the general build comes, some GB larger."
    say "to avoid it, stop here and run: make TORCH_INDEX=<PyTorch's CPU index, see pytorch.org>"
}

install() {
    local index=()
    [ -n "${TORCH_INDEX:-}" ] && index=(--extra-index-url "$TORCH_INDEX")
    say "installing slicfast and the $stack stack into $venv (the whole story: $log)"
    if ! $venv/bin/python -m pip install --disable-pip-version-check --progress-bar off "${index[@]}" \
        -c "requirements/constraints-$stack.txt" -e ".[$stack,dev,docs]" 2>&1 | tee $log |
        sed -unE 's/^ *(Downloading|Processing) (.*\/)?([^/ ]+-[0-9][^-/ ]*)-[^/ ]*\.whl( \([0-9.]+ [kMG]B\))?( .*)?$/    \3\4/p
                  s/^Installing collected packages.*/    unpacking/p'
    then
        grep -E '^ *ERROR' $log >&2 || tail -n 15 $log >&2
        fail "pip could not install the $stack stack; the whole story is in $log"
    fi
}

held=$(sed -n 's/^stack //p' $stamp 2>/dev/null || true)
case $stack in
    auto) stack=${held:-$(driver_stack)} ;;
    cpu|cuda12|cuda13) ;;
    *) fail "STACK must be one of auto, cpu, cuda12, cuda13; got '$stack'" ;;
esac
make_venv
wanted="stack $stack"$'\n'"$(cat pyproject.toml requirements/* | cksum)"
if [ -f $stamp ] && [ "$(cat $stamp)" = "$wanted" ]; then
    say "$venv holds the $stack stack"
    exit 0
fi
printf 'stack %s\n' "$stack" >$stamp  # begun
[ "$stack" = cpu ] && warn_of_large_torch
install
printf '%s\n' "$wanted" >$stamp
say "installed; see 'slicfast doctor' for what this machine can do"
