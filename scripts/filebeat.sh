#!/bin/sh
# Builds filebeat from its Go module, for the peers' test of the Beats input: scripts/filebeat.sh DIR, then TOCSIN_FILEBEAT=DIR/filebeat.
# It takes about 1 GiB of disk and seven minutes of two busy cores; nothing of it comes into this repository.
set -eu
version=v7.17.24
dir=$1
mkdir -p "$dir"
cd "$dir"
[ -f go.mod ] || go mod init filebeat-peer
src=$(GOFLAGS=-mod=mod go mod download -json "github.com/elastic/beats/v7@$version" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
[ -d src ] || { cp -r "$src" src && chmod -R u+w src; } # with its own go.mod: what it replaces counts only there
cd src
GOFLAGS=-mod=mod go build -o ../filebeat ./filebeat
