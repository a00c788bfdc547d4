#!/bin/sh
# Builds what is needed and measures; see README.md. EVENKEEL names a binary to use in place of this tree's.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cargo build --release --quiet --manifest-path "$here/../Cargo.toml" -p evenkeel-bench-proxy
if [ -z "${EVENKEEL:-}" ]; then
    cargo build --release --manifest-path "$here/../../Cargo.toml" -p evenkeel-cli
    EVENKEEL=${CARGO_TARGET_DIR:-$here/../../target}/release/evenkeel
fi
export EVENKEEL
exec python3 "$here/run.py" "$@"
