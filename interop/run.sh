#!/usr/bin/env bash
# Checks Evenkeel against real gRPC peers: installs them, builds what is missing, and runs the checks.
# Arguments go to run.py; `--direct` leaves Evenkeel out and lets the peers check each other.
set -euo pipefail
cd "$(dirname "$0")"
export EVENKEEL=${EVENKEEL:-$PWD/../target/release/evenkeel}

./install.sh
if [[ ! -x $EVENKEEL && " $* " != *" --direct "* ]]; then
  cargo build --release --package evenkeel-cli --bin evenkeel
fi
exec .cache/venv/bin/python run.py "$@"
