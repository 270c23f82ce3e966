#!/bin/sh
# Runs every fuzz target for the given time each (default 10s). A found input is written below the package's testdata/fuzz.
set -eu
cd "$(dirname "$0")/.."
each=${1:-10s}
grep -rlE --include='*_test.go' '^func Fuzz[A-Z]' . | grep -v node_modules | while read -r f; do
	dir=$(dirname "$f")
	sed -nE 's/^func (Fuzz[A-Za-z0-9_]+)\(.*/\1/p' "$f" | while read -r name; do
		echo "fuzz: $dir $name"
		go test -run '^$' -fuzz "^$name\$" -fuzztime "$each" "$dir" >"${TMPDIR:-/tmp}/fuzz.$$" 2>&1 || { cat "${TMPDIR:-/tmp}/fuzz.$$"; rm -f "${TMPDIR:-/tmp}/fuzz.$$"; exit 1; }
	done
done
rm -f "${TMPDIR:-/tmp}/fuzz.$$"
