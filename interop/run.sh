#!/usr/bin/env bash
# Checks Evenkeel against real gRPC peers: installs them, builds Evenkeel, and runs the checks.
# $EVENKEEL names a binary to check in place of the one built from this tree.
# Arguments go to run.py: suites to run, and `--direct`, which leaves Evenkeel out and lets the peers check each other.
set -euo pipefail
cd "$(dirname "$0")"

./install.sh
if [[ " $* " != *" --direct "* ]]; then
  cargo build --quiet --release --package evenkeel-cli --package evenkeel-interop
  cargo build --quiet --release --package evenkeel-checker --example follow
fi
export EVENKEEL=${EVENKEEL:-$PWD/../target/release/evenkeel}
exec .cache/venv/bin/python run.py "$@"
