#!/usr/bin/env bash
# Regenerates echopb/ from the demo service's proto. Run it after that file changes, and commit what it writes.
set -euo pipefail
cd "$(dirname "$0")"
cache=../.cache
protos=../../crates/proto/protos
file=evenkeel/demo/v1/echo.proto
package=evenkeel/interop/echopb

go build -o "$cache/bin/" google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc
mkdir -p echopb
PATH="$PWD/$cache/bin:$PATH" "$cache/venv/bin/python" -m grpc_tools.protoc --proto_path="$protos" \
  --go_out=. --go_opt=module=evenkeel/interop,M$file=$package \
  --go-grpc_out=. --go-grpc_opt=module=evenkeel/interop,M$file=$package "$file"
