#!/bin/sh
# Brings what the hub needs and git does not hold, once: the event store's engine library and the
# place and network data. Versions are pinned by package-lock.json, content by scripts/data.sha256.
#
#   scripts/fetch-data.sh [--check] [PREFIX]
#
# PREFIX (default: the repository) gets lib/tocsin/ and share/tocsin/, where the programs in
# PREFIX/bin look. --check only verifies what is installed. A second run takes milliseconds: a stamp
# remembers the list that was verified and each file's size and time; a changed file is verified anew.
set -eu

root=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)
check=no
if [ "${1:-}" = "--check" ]; then check=yes; shift; fi
prefix=${1:-$root}
list=$root/scripts/data.sha256
stamp=$prefix/share/tocsin/.verified

fail() { printf 'fetch-data: %s\n' "$1" >&2; exit 1; }

# state prints what the stamp must hold for the installed files to count as verified.
state() {
	cat "$list"
	while read -r sum file _; do
		case $sum in ''|'#'*) continue ;; esac
		stat -c '%n %s %Y' "$prefix/$file" 2>/dev/null || echo "missing $file"
	done <"$list"
}

# verify compares every installed file with the committed digest.
verify() {
	(cd "$prefix" && sed -e '/^#/d' -e '/^$/d' -e 's/^\([0-9a-f]\{64\}\)  *\([^ ]*\).*/\1  \2/' "$list" | sha256sum --check --quiet --strict) ||
		fail "a file in $prefix is not the one this commit was tested with (see above). Remove it and run scripts/fetch-data.sh again; if it happens twice, do not use the data."
}

if [ "$check" = yes ]; then
	verify
	echo "fetch-data: all files are as committed"
	exit 0
fi
if [ -f "$stamp" ] && state | cmp -s - "$stamp"; then
	exit 0
fi

case $(uname -s)/$(uname -m) in
Linux/x86_64) ;;
*) fail "the engine library of this version is published for Linux on x86-64 only, this machine is $(uname -s)/$(uname -m). Run the hub on such a machine, or set engine.url to a ClickHouse server." ;;
esac
if ! getconf GNU_LIBC_VERSION >/dev/null 2>&1; then
	fail "the engine library needs glibc (Debian, Ubuntu, Fedora ...), and this system has another C library."
fi
command -v npm >/dev/null 2>&1 || fail "npm is needed once to bring the data: apt-get install npm"

echo "fetch-data: bringing the engine library and the place data (about 150 MB, once)" >&2
(cd "$root" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2) ||
	fail "npm could not bring the packages (see above). Check the network or the npm registry setting, then run scripts/fetch-data.sh again."

# Each line of the list ends with the file's path below node_modules. Linking saves 600 MB; where
# the file systems differ the file is copied.
while read -r sum file from; do
	case $sum in ''|'#'*) continue ;; esac
	mkdir -p "$prefix/$(dirname "$file")"
	rm -f "$prefix/$file"
	ln "$root/node_modules/$from" "$prefix/$file" 2>/dev/null ||
		cp "$root/node_modules/$from" "$prefix/$file" ||
		fail "cannot install $file; is the disk full? 1 GB is needed."
done <"$list"

verify
state >"$stamp.new"
mv "$stamp.new" "$stamp"
echo "fetch-data: installed and verified in $prefix/lib/tocsin and $prefix/share/tocsin" >&2
