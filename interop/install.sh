#!/usr/bin/env bash
# Installs the pinned peers into .cache/ and node/node_modules/. Quick when nothing changed.
# A missing tool chain is said, and its peers are left out; the runner counts their checks as skipped.
set -euo pipefail
cd "$(dirname "$0")"
mkdir -p .cache/bin

# installed NAME FILES...: whether NAME was installed from these very files.
stamp() { cat "$@" | sha256sum; }
installed() { local name=$1; shift; [[ -f .cache/$name.stamp && $(stamp "$@") == "$(<.cache/"$name".stamp)" ]]; }
mark() { local name=$1; shift; stamp "$@" > ".cache/$name.stamp"; }
have() { command -v "$1" > /dev/null || { echo "install: no $1 on the PATH: the $2 peers are left out" >&2; return 1; }; }

install_python() {
  installed python python/requirements.txt && return
  python3 -m venv .cache/venv
  .cache/venv/bin/pip install --quiet --disable-pip-version-check -r python/requirements.txt
  mark python python/requirements.txt
}

install_go() {
  cd go
  go build -o ../.cache/bin/ ./echo-backend ./echo-client ./echo-load github.com/grpc-ecosystem/grpc-health-probe
  go build -o ../.cache/bin/ github.com/summerwind/h2spec/cmd/h2spec
  go build -o ../.cache/bin/grpc-go-client google.golang.org/grpc/interop/client
  go build -o ../.cache/bin/grpc-go-server google.golang.org/grpc/interop/server
  cd ..
}

install_node() {
  installed node node/package-lock.json && return
  npm ci --prefix node --silent --no-audit --no-fund --ignore-scripts
  mark node node/package-lock.json
}

install_java() {
  installed java java/pom.xml && return
  rm -rf .cache/java
  mvn --batch-mode --quiet --file java/pom.xml dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$PWD/.cache/java"
  mark java java/pom.xml
}

# The network suite's tools. Only as root can it run, and only then are they installed.
install_network() {
  command -v ip > /dev/null && command -v nsenter > /dev/null && return
  if [[ $EUID == 0 ]] && command -v apt-get > /dev/null; then
    apt-get install --yes --quiet=2 iproute2 util-linux
  else
    echo "install: no ip or nsenter on the PATH (Debian: iproute2, util-linux): the network suite is left out" >&2
  fi
}

have python3 grpcio || exit 1 # the runner itself needs it
install_python
install_network
if have go grpc-go; then install_go; fi
if have npm Node; then install_node; fi
if have javac Java && have mvn Java; then install_java; fi
