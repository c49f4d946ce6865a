#!/usr/bin/env bash
# Prepare this machine for `make demo` and `make test`: what cannot work is said first, then a Python, the Debian
# packages, the locked virtual environment and a Docker Engine are put in place. Safe to run again: does nothing twice.
# usage: bootstrap.sh [PACKAGE...]     (further Debian packages that the caller needs)
set -euo pipefail
cd "$(dirname "$0")"

readonly NEED_GIB=12
readonly PACKAGES=(docker.io iptables mmdebstrap openssh-client)
readonly VENV=.venv

die() {
    echo "onebox: $*" >&2
    exit 1
}

say() { printf '[%d:%02d] %s\n' $((SECONDS / 60)) $((SECONDS % 60)) "$*"; }

check_machine() {
    [ "$(id -u)" -eq 0 ] || die "needs root (it installs packages and starts a VM): run it with sudo, or as root"
    # shellcheck source=/dev/null
    . /etc/os-release
    case "${ID:-}:${VERSION_ID:-}" in
    debian:12 | debian:13) ;;
    *) die "runs on Debian 12 or 13, and this is ${PRETTY_NAME:-unknown}: use such a machine, or provision a real VM from any system with Ansible (README, \"On a VM of your own\")" ;;
    esac
    local folder free
    for folder in /var/lib .; do
        free=$(( $(stat -f -c '%a*%S' "$folder") / 1024 / 1024 / 1024))
        [ "$free" -ge "$NEED_GIB" ] || die "needs $NEED_GIB GiB free at $(realpath "$folder"), found $free GiB: free some space"
    done
}

# The first interpreter of 3.12 or newer: on PATH, in pyenv, /usr/local, /opt.
find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3.13 python3.12 python3.14 python3 \
        "${PYENV_ROOT:-$HOME/.pyenv}"/versions/*/bin/python3 /usr/local/bin/python3.* /opt/*/bin/python3; do
        candidate=$(command -v "$candidate" 2>/dev/null) || continue
        "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 12))' 2>/dev/null || continue
        echo "$candidate"
        return
    done
    return 1
}

python_from_uv() {
    local tools=.cache/uv
    python3 -m venv "$tools" >/dev/null 2>&1 && "$tools/bin/pip" install --quiet uv >/dev/null 2>&1 &&
        "$tools/bin/uv" python install --quiet 3.13 >/dev/null 2>&1 && "$tools/bin/uv" python find 3.13
}

install_packages() {
    local wanted=("$@") missing=() package
    docker info >/dev/null 2>&1 && wanted=("${wanted[@]/docker.io/}")
    for package in "${wanted[@]}"; do
        [ -z "$package" ] || dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    say "installing Debian packages: ${missing[*]}"
    local log=.cache/apt.log
    if ! { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
        tail -n 5 "$log" >&2
        die "apt-get could not install ${missing[*]}: the lines above say why, $log has all of them"
    fi
}

make_venv() {
    local python=$1 stamp
    stamp="$("$python" -V) $(sha256sum requirements.txt | cut -d' ' -f1)"
    [ "$(cat "$VENV/.stamp" 2>/dev/null)" != "$stamp" ] || return 0
    say "making the virtual environment of the controller ($("$python" -V))"
    rm -rf "$VENV"
    "$python" -m venv "$VENV"
    local log=.cache/pip.log
    if ! "$VENV/bin/pip" install --quiet --no-compile --disable-pip-version-check --require-hashes -r requirements.txt >"$log" 2>&1; then
        tail -n 5 "$log" >&2
        die "pip could not install requirements.txt: the lines above say why, $log has all of them"
    fi
    # What every play imports; the collections are three quarters of it. Where PYTHONDONTWRITEBYTECODE is set, as in
    # many images, each play would compile it again.
    "$VENV/bin/python" -m compileall -q -j 0 "$VENV"/lib/python3*/site-packages/{ansible,jinja2,yaml}
    echo "$stamp" >"$VENV/.stamp"
}

start_engine() {
    docker info >/dev/null 2>&1 && return
    say "starting the Docker Engine"
    if [ -d /run/systemd/system ]; then
        systemctl start docker
    else
        # No init system here: the daemon outlives this script in a session of its own.
        rm -f /var/run/docker.pid
        setsid --fork dockerd >.cache/dockerd.log 2>&1 </dev/null
    fi
    for _ in $(seq 60); do
        docker info >/dev/null 2>&1 && return
        sleep 1
    done
    tail -n 5 .cache/dockerd.log >&2 || true
    die "the Docker Engine did not answer within 60 s: see the lines above, or start one yourself"
}

check_machine
mkdir -p .cache
# Debian keeps venv and pip apart from its python3; without an interpreter of 3.12 they are no use.
if python3 -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null; then
    install_packages python3-venv
fi
python=$(find_python || python_from_uv) || die "needs Python 3.12 or newer for Ansible, found only $(python3 -V 2>&1): install one (pyenv install 3.13, or Debian 13's python3) and set PYTHON=/path/to/python3"
install_packages "${PACKAGES[@]}" "$@"
make_venv "$python"
start_engine
