#!/bin/sh
# Runs every fuzz target for the given time each (default 10s), as many at once as there are processors. Each package is built once, with
# coverage; but what stands on a database, a message server, a PDF or a gRPC library only when its targets run for more than five seconds:
# building all of those a second time takes minutes, and coverage tells a run of two seconds nothing. A found input is written below the
# package's testdata/fuzz: commit it with the mend.
set -eu
cd "$(dirname "$0")/.."

# run DIR TARGET fuzzes one target, with one worker; its output is in $tmp/out.
run() {
	(cd "$1" && "$tmp/fuzz.test" -test.run='^$' -test.fuzz="^$2\$" -test.fuzztime="$each" -test.parallel=1 -test.fuzzminimizetime=10x -test.fuzzcachedir="$tmp/cache" >"$tmp/out" 2>&1 </dev/null)
}

if [ "${1:-}" = --package ]; then # called from below: all targets of one package
	dir=$2 each=$3
	tmp=$(mktemp -d)
	trap 'rm -rf "$tmp"' EXIT
	cover=-fuzz=.
	case "$each" in
	[1-5]s) ! go list -test -deps "./$dir" | grep -qE '^(modernc.org/sqlite|github.com/nats-io/nats-server/v2/server|google.golang.org/grpc|github.com/pdfcpu/pdfcpu/pkg/api)$' || cover= ;;
	esac
	go test -c $cover -o "$tmp/fuzz.test" "./$dir"
	cat "$dir"/*_test.go | sed -nE 's/^func (Fuzz[A-Za-z0-9_]+)\(.*/\1/p' | sort -u >"$tmp/targets"
	while read -r name; do
		if ! run "$dir" "$name"; then
			# "context deadline exceeded" without an input is no finding: the coordinator of go test -fuzz races with its own deadline
			# (golang/go issue 75804, there in go1.26.8, mended in Go 1.27; no input is written). A real finding always writes its
			# input, so only that is tried again; on a busy machine it has come twice in a row.
			again=3
			while [ $again -gt 0 ] && grep -q "context deadline exceeded" "$tmp/out" && ! grep -q "Failing input written" "$tmp/out"; do
				if run "$dir" "$name"; then
					continue 2
				fi
				again=$((again - 1))
			done
			cat "$tmp/out"
			echo "fuzz: $dir $name FAILED; to see it again: go test -run '$name' ./$dir" >&2
			exit 255 # no other package is begun
		fi
	done <"$tmp/targets"
	echo "fuzz: $dir: $(wc -l <"$tmp/targets") targets for $each each"
	exit
fi

# The packages with most targets first, so that the processors end together.
grep -rcE --include='*_test.go' '^func Fuzz[A-Z]' cmd internal rules sigma | awk -F: '$2 > 0 { sub("/[^/]*$", "", $1); n[$1] += $2 } END { for (d in n) print n[d], d }' |
	sort -k1,1nr -k2 | cut -d' ' -f2- | xargs -P "$(nproc)" -I DIR scripts/fuzz.sh --package DIR "${1:-10s}"
