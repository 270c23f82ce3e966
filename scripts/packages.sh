#!/bin/sh
# The collector's programs, packages and container image, in DIST (default dist/): what `make packages` runs. The same sources, version and
# SOURCE_DATE_EPOCH give the same bytes in any folder (scripts/reproducible.sh shows it).
#
#   VERSION             default: 0.0.0-dev and the commit's first digits
#   SOURCE_DATE_EPOCH   default: the commit's time
#   RELEASE_KEYS        release-keys.json of those who may sign updates; without it the packages take none
#   MAINTAINER          of the packages; default: nobody in particular
#   CA_FILE             default: /etc/ssl/certs/ca-certificates.crt
#   ARCHES              default: amd64 arm64
set -eu
cd "$(dirname "$0")/.."
NFPM_VERSION=v2.45.2

commit=$(git rev-parse --short=12 HEAD 2>/dev/null || echo none)
VERSION=${VERSION:-0.0.0-dev.$commit}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
MAINTAINER=${MAINTAINER:-The Tocsin project <nobody@tocsin.invalid>}
CA_FILE=${CA_FILE:-/etc/ssl/certs/ca-certificates.crt}
ARCHES=${ARCHES:-amd64 arm64}
DIST=${DIST:-dist}
MTIME=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)
export VERSION SOURCE_DATE_EPOCH MAINTAINER MTIME
export CGO_ENABLED=0 LC_ALL=C TZ=UTC
umask 022

nfpm=$(go env GOPATH)/bin/nfpm
if ! [ -x "$nfpm" ] || ! go version -m "$nfpm" 2>/dev/null | grep -q "nfpm/v2[[:space:]]*$NFPM_VERSION"; then
	go install "github.com/goreleaser/nfpm/v2/cmd/nfpm@$NFPM_VERSION"
fi

rm -rf "$DIST"
mkdir -p "$DIST"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

oci=
for arch in $ARCHES; do
	export ARCH=$arch BUILD=$work/$arch
	mkdir -p "$BUILD"
	# -buildvcs=false: the state of the work tree is not part of what is built; the version names the commit.
	GOOS=linux GOARCH=$arch go build -trimpath -buildvcs=false -ldflags "-s -w -buildid= -X main.version=$VERSION" -o "$BUILD/tocsin-collector" ./cmd/tocsin-collector
	gzip -9nc packaging/tocsin-collector.8 >"$BUILD/tocsin-collector.8.gz"
	{
		printf 'Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: tocsin\n\nFiles: *\nCopyright: The Tocsin authors\nLicense: Apache-2.0\n'
		printf ' On Debian systems the full text is in /usr/share/common-licenses/Apache-2.0.\n .\n The program holds Go modules under licences of their own:\n'
		sed 's/^$/./; s/^/ /' NOTICE
	} >"$BUILD/copyright"
	{
		printf 'tocsin-collector (%s) unstable; urgency=medium\n\n  * Release %s. docs/release.md says how to check it.\n\n -- %s  %s\n' "$VERSION" "$VERSION" "$MAINTAINER" "$(date -u -R -d "@$SOURCE_DATE_EPOCH")"
	} | gzip -9nc >"$BUILD/changelog.gz"
	if [ -n "${RELEASE_KEYS:-}" ]; then
		cp "$RELEASE_KEYS" "$BUILD/release-keys.json"
	else
		printf '{"threshold": 0, "keys": []}\n' >"$BUILD/release-keys.json"
	fi
	cp -R packaging "$BUILD/packaging"
	chmod -R u=rwX,go=rX "$BUILD"
	find "$BUILD" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
	sed "s|@MTIME@|$MTIME|; s|@BUILD@|$BUILD|; s|@ARCH@|$arch|; s|@VERSION@|$VERSION|; s|@MAINTAINER@|$MAINTAINER|" packaging/nfpm.yaml >"$work/nfpm.yaml"
	# The deb brings its own file; for the rpm nfpm writes the tags that rpm -q --changelog reads.
	printf -- '- semver: %s\n  date: %s\n  packager: %s\n  changes:\n    - note: Release %s. docs/release.md says how to check it.\n' "$VERSION" "$MTIME" "$MAINTAINER" "$VERSION" >"$BUILD/changelog.yaml"
	for format in deb rpm; do
		[ $format = deb ] || echo "changelog: $BUILD/changelog.yaml" >>"$work/nfpm.yaml"
		"$nfpm" package --config "$work/nfpm.yaml" --packager $format --target "$DIST/" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
	done
	cp "$BUILD/tocsin-collector" "$DIST/tocsin-collector_${VERSION}_linux_$arch"
	oci="$oci $arch=$BUILD/tocsin-collector"
done
# shellcheck disable=SC2086 # a list
go run ./cmd/tocsin-release oci --version "$VERSION" --epoch "$SOURCE_DATE_EPOCH" --ca "$CA_FILE" --config packaging/collector.yaml --release-keys "$work/${ARCHES%% *}/release-keys.json" \
	--out "$work/oci" $oci >/dev/null
mv "$work/oci.tar" "$DIST/tocsin-collector_${VERSION}-oci.tar"
(cd "$DIST" && sha256sum -- * >SHA256SUMS)
ls -l "$DIST"
