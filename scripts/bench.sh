#!/bin/sh
# Every benchmark once, on real samples; docs/performance.md keeps the figures with machine and date.
set -eu
cd "$(dirname "$0")/.."
export TOCSIN_ENGINE_LIBRARY="${TOCSIN_ENGINE_LIBRARY:-$PWD/lib/tocsin/libchdb.so}"
go test -run '^$' -bench . -benchmem -benchtime "${BENCHTIME:-2s}" -timeout 30m ./... | grep -vE '^(ok|PASS|\?)'

# Our Sigma engine beside the best other one in Go, in a module of its own so that nothing else depends on that.
(cd bench/peers && go test -run '^$' -bench . -benchtime 1x -timeout 30m -v ./... | grep -vE '^(=== |ok|PASS|\?)')
