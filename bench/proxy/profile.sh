#!/bin/sh
# profile.sh PROXY CONNECTIONS STREAMS [SECONDS]: where the proxy's time goes, by `perf`. Needs what run.sh builds.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
export EVENKEEL="${EVENKEEL:-${CARGO_TARGET_DIR:-$here/../../target}/release/evenkeel}"
exec python3 "$here/perf.py" "$@"
