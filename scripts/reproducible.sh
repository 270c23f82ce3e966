#!/bin/sh
# Builds everything that `make packages` makes twice, from two copies of the sources in different folders, with different build caches,
# times and umasks, and compares byte for byte.
set -eu
cd "$(dirname "$0")/.."
root=$(mktemp -d)
trap 'chmod -R u+w "$root"; rm -rf "$root"' EXIT
VERSION=${VERSION:-0.0.0-dev.$(git rev-parse --short=12 HEAD)}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export VERSION SOURCE_DATE_EPOCH
for copy in one another/deeper; do
	mkdir -p "$root/$copy"
	git archive HEAD | tar -x -C "$root/$copy"
done
echo "reproducible: first build"
(cd "$root/one" && umask 022 && GOCACHE="$root/cache1" TZ=UTC scripts/packages.sh >/dev/null)
echo "reproducible: second build, elsewhere, from nothing"
(cd "$root/another/deeper" && umask 077 && GOCACHE="$root/cache2" TZ=Asia/Tokyo LANG=C.UTF-8 GOFLAGS=-p=1 scripts/packages.sh >/dev/null)
diff -r "$root/one/dist" "$root/another/deeper/dist"
echo "reproducible: the same bytes"
cat "$root/one/dist/SHA256SUMS"
