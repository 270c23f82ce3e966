# The two commands a stranger needs are `make run` and `make test`. The others are their long forms and parts.

GO       ?= go
# Static programs, and one build cache for programs and tests; only the race detector needs cgo.
export CGO_ENABLED = 0

.PHONY: run build release data test lint unit race fuzz-short fuzz peers torture bench packages reproducible appliance clean

run: data build
	./bin/tocsin demo

data:
	@scripts/fetch-data.sh

build:
	@mkdir -p bin
	$(GO) build -o bin/ ./cmd/tocsin ./cmd/tocsin-collector ./cmd/tocsin-engine

# release makes the programs small and independent of where they were built.
release: data
	@mkdir -p bin
	$(GO) build -trimpath -ldflags='-s -w' -o bin/ ./cmd/tocsin ./cmd/tocsin-collector ./cmd/tocsin-engine

# test is what .ci/run calls.
test: data build
	scripts/test.sh

lint:
	scripts/lint.sh

fuzz:
	scripts/fuzz.sh $${FUZZTIME:-60s}

# peers runs strangers' programs against ours: rsyslog, openssl, zstd; the browser, SMTP, poppler and qpdf are in the ordinary tests.
peers: data build
	TOCSIN_TEST_PEERS=1 $(GO) test -count=1 -run 'Peer' ./...

# torture is the long fault suite: kill -9, full disks, cut links.
torture: data build
	TOCSIN_TEST_TORTURE=long TOCSIN_TORTURE=200 $(GO) test -count=1 -timeout 180m -run 'Torture|Kill|Crash' ./...

bench: data build
	scripts/bench.sh

# packages makes the collector's programs, deb, rpm and container image for amd64 and arm64 in dist/ (docs/release.md).
packages:
	scripts/packages.sh

# reproducible builds all of that twice, from nothing, in two places, and compares byte for byte.
reproducible:
	scripts/reproducible.sh

# appliance makes the virtual appliance from dist/: qcow2, OVA and VHDX. It needs root and Debian's tools (docs/appliance.md).
appliance:
	packaging/appliance/build.sh

clean:
	rm -rf bin lib share node_modules
