#!/bin/sh
# Runs every fuzz target for the given time each (default 10s). Each package is built once, with coverage. A found input is written below
# the package's testdata/fuzz: commit it with the mend.
set -eu
cd "$(dirname "$0")/.."
each=${1:-10s}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# run PACKAGE TARGET fuzzes one target; its output is in $tmp/out.
run() {
	(cd "$1" && "$tmp/fuzz.test" -test.run='^$' -test.fuzz="^$2\$" -test.fuzztime="$each" -test.fuzzminimizetime=10x -test.fuzzcachedir="$tmp/cache" >"$tmp/out" 2>&1 </dev/null)
}

grep -rlE --include='*_test.go' '^func Fuzz[A-Z]' cmd internal rules sigma | xargs -n1 dirname | sort -u >"$tmp/packages"
while read -r dir; do
	go test -c -fuzz=. -o "$tmp/fuzz.test" "./$dir"
	cat "$dir"/*_test.go | sed -nE 's/^func (Fuzz[A-Za-z0-9_]+)\(.*/\1/p' | sort -u >"$tmp/targets"
	while read -r name; do
		if ! run "$dir" "$name"; then
			# "context deadline exceeded" without an input is no finding: the coordinator of go test -fuzz races with its own deadline
			# (golang/go issue 75804, there in go1.26.8, mended in Go 1.27; no input is written). A real finding always writes its
			# input, so only that is tried once more.
			if grep -q "Failing input written" "$tmp/out" || ! grep -q "context deadline exceeded" "$tmp/out" || ! run "$dir" "$name"; then
				cat "$tmp/out"
				echo "fuzz: $dir $name FAILED; to see it again: go test -run '$name' ./$dir" >&2
				exit 1
			fi
		fi
	done <"$tmp/targets"
	echo "fuzz: $dir: $(wc -l <"$tmp/targets") targets for $each each"
done <"$tmp/packages"
