#!/bin/sh
# profile.sh PROXY CONNECTIONS STREAMS [SECONDS]: where the proxy's time goes, by `perf`. Needs what run.sh builds.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
export EVENKEEL="${EVENKEEL:-${CARGO_TARGET_DIR:-$here/../../target}/release/evenkeel}" PYTHONPATH="$here"
exec python3 -m measure.profile "$@"
