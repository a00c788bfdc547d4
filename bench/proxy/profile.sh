#!/bin/sh
# profile.sh PROXY CONNECTIONS STREAMS [SECONDS]: where the proxy's time goes, by `perf`. The command is built with symbols
# for it, beside the usual build; EVENKEEL names another binary to use.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cargo build --release --quiet --manifest-path "$here/../Cargo.toml" -p evenkeel-bench-proxy
if [ "${1:-}" = evenkeel ] && [ -z "${EVENKEEL:-}" ]; then
    RUSTFLAGS="-C force-frame-pointers=yes" cargo build --manifest-path "$here/../../Cargo.toml" -p evenkeel-cli \
        --profile profiling --config 'profile.profiling.inherits = "release"' \
        --config 'profile.profiling.strip = "none"' --config 'profile.profiling.debug = "line-tables-only"'
    EVENKEEL=${CARGO_TARGET_DIR:-$here/../../target}/profiling/evenkeel
    export EVENKEEL
fi
exec python3 "$here/perf.py" "$@"
