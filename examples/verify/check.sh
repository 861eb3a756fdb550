#!/usr/bin/env bash
# Each verifier against the vectors of the proof format.
set -euo pipefail
cd "$(dirname "$0")"

vectors=../../docs/proof-format-vectors.json
python3 python/verify.py --vectors "$vectors"
node javascript/main.js --vectors "$vectors"
node javascript/main.js --leaves ../../docs/leaf-format-vectors.json
GO111MODULE=on GOFLAGS=-mod=mod GOCACHE="${GOCACHE:-$PWD/../../target/go}" go run go/verify.go --vectors "$vectors"
