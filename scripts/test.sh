#!/bin/sh
# All tests, as `make test` and CI run them: lint, unit, script and browser tests, the race detector where goroutines meet, fuzz seeds
# and three minutes of fuzzing in all, and the short form of the fault suite. TOCSIN_TEST_FUZZ=0 leaves the fuzzing out.
set -eu
cd "$(dirname "$0")/.."
export TOCSIN_ENGINE_LIBRARY="${TOCSIN_ENGINE_LIBRARY:-$PWD/lib/tocsin/libchdb.so}"

step() { printf '\n== %s\n' "$1"; }

step "lint"
scripts/lint.sh

step "unit, script, browser and short fault tests"
go test -count=1 -timeout 15m ./...

step "race detector"
# Packages where goroutines share state; the pure ones (event, sigma, parse, batch ...) have none.
CGO_ENABLED=1 go test -race -short -count=1 -timeout 10m $(cat scripts/race.txt)

if [ "${TOCSIN_TEST_FUZZ:-1}" != 0 ]; then
	n=$(grep -rhE --include='*_test.go' '^func Fuzz[A-Z]' . | wc -l)
	each=$((180 / (n > 0 ? n : 1)))
	[ "$each" -ge 2 ] || each=2
	step "fuzzing: $n targets, ${each}s each"
	scripts/fuzz.sh "${each}s"
fi
