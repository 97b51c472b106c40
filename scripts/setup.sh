# Sourced by the scripts beside it: makes this checkout's own virtual environment once and says where it is.
#
#   source setup.sh; setup cli test     # -> $root, $venv, $python; the extras' requirements are installed
#
# The environment is .venv in the checkout, or $NEXCAGE_VENV. It is made again when it is broken, brought up to date when
# pyproject.toml changed, and otherwise used as it is, without asking any package index. Several scripts may do this at once.

# shellcheck shell=bash
unset CDPATH PYTHONHOME PYTHONPATH PIP_USER PIP_TARGET PIP_PREFIX
root=$(cd -P -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
venv=${NEXCAGE_VENV:-$root/.venv}
case $venv in /*) ;; *) venv=$PWD/$venv ;; esac
python=$venv/bin/python

say() { printf '%s\n' "$*" >&2; }

# The interpreter that makes the environment: the first one that is new enough and can.
_interpreter() {
    local candidate
    for candidate in ${NEXCAGE_PYTHON:+"$NEXCAGE_PYTHON"} python3 python3.14 python3.13 python3.12 python3.11; do
        if command -v -- "$candidate" >/dev/null &&
            "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    say "nexcage: no Python 3.11 or newer that can make a virtual environment was found"
    say "  on Debian and its kin: apt-get install python3 python3-venv"
    return 1
}

# What the environment is made from. A change of it means installing again.
_key() {
    printf '%s\n' "$root"
    "$python" -c 'import sys; print(sys.version)'
    cat -- "$root/pyproject.toml" "$root/nexcage/_version.py"
}

# The requirements of some extras, one a line; an extra may name another (`nexcage[test]`).
_requirements() {
    "$python" - "$root/pyproject.toml" "$@" <<'PYTHON'
import re, sys, tomllib
with open(sys.argv[1], "rb") as file:
    project = tomllib.load(file)["project"]
todo, seen = sys.argv[2:], set()
while todo:
    extra = todo.pop()
    if extra in seen:
        continue
    seen.add(extra)
    for requirement in project["optional-dependencies"][extra]:
        own = re.fullmatch(project["name"] + r"\[([\w, -]+)\]", requirement)
        todo.extend(own[1].replace(" ", "").split(",")) if own else print(requirement)
PYTHON
}

# The checkout itself is installed once per key, the extras' requirements beside it: whoever is running meanwhile keeps
# finding nexcage and its entry points.
_install() {
    local key interpreter extra requirements wanted=() missing=()
    if ! [[ -e $venv/nexcage-installed ]] || ! "$python" -c '' >/dev/null 2>&1; then
        if [[ -e $venv && ! -e $venv/pyvenv.cfg && -n $(ls -A -- "$venv") ]]; then
            say "nexcage: $venv is there and is no virtual environment; NEXCAGE_VENV names another place"
            return 1
        fi
        interpreter=$(_interpreter) || return
        say "nexcage: making a virtual environment in $venv (once)"
        "$interpreter" -m venv -- "$venv" || return
    fi
    key=$(_key) || return
    if [[ $(cat -- "$venv/nexcage-installed" 2>/dev/null) != "$key" ]]; then
        rm -f -- "$venv"/nexcage-extra-* || return
        say "nexcage: installing this checkout into $venv"
        "$python" -m pip install --quiet --disable-pip-version-check --editable "$root" || return
        printf '%s\n' "$key" >"$venv/nexcage-installed" || return
    fi
    for extra in "$@"; do
        [[ -e $venv/nexcage-extra-$extra ]] || missing+=("$extra")
    done
    ((${#missing[@]})) || return 0
    requirements=$(_requirements "${missing[@]}") || return
    mapfile -t wanted <<<"$requirements"
    say "nexcage: installing what ${missing[*]} needs"
    "$python" -m pip install --quiet --disable-pip-version-check "${wanted[@]}" || return
    for extra in "${missing[@]}"; do : >"$venv/nexcage-extra-$extra" || return; done
}

setup() {
    local lock
    mkdir -p -- "$(dirname -- "$venv")" || exit 1
    exec {lock}>"$venv.lock" || exit 1
    flock "$lock" || exit 1
    _install "$@" || { say "nexcage: the set-up failed; what is above says why"; exit 1; }
    exec {lock}>&-
    PATH=$venv/bin:$PATH
    export PATH VIRTUAL_ENV=$venv
}
