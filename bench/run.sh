#!/bin/sh
# Builds both programs (the one that measures time, the one that counts allocations) and runs what is asked for.
set -eu
cd "$(dirname "$0")"
cargo build --release
exec "${CARGO_TARGET_DIR:-target}/release/evenkeel-bench" "$@"
