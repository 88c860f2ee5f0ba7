#!/usr/bin/env bash
# Installs what the tests need and the machine lacks; says nothing when there is
# nothing to do.
#
#   scripts/install-tools.sh            Debian packages for `make test`
#   scripts/install-tools.sh --lint     golangci-lint, pinned, into build/tools/bin
#   scripts/install-tools.sh --bench    benchstat, pinned, into build/tools/bin
#
# Debian packages need root. Without root it names what is missing and what to
# run as root, and goes on: `make test` then leaves out what needs them.
set -euo pipefail
cd "$(dirname "$0")/.."

# Versions are pinned here and nowhere else.
golangci_lint_version=v2.15.0
benchstat_version=v0.0.0-20260908200009-22c9c6c9d4da

# What must be callable, and the package that brings it.
needed='
tshark:tshark
tcpdump:tcpdump
nft:nftables
ip:iproute2
iperf3:iperf3
ping:iputils-ping
pgrep:procps
ethtool:ethtool
gcc:gcc
swanctl:strongswan-swanctl
'
# Files that are not commands: Python modules of Debian's own python3, the C
# headers that the race detector's build needs, and plugins of strongSwan, beside
# which bench measures.
needed_files='
/usr/lib/python3/dist-packages/scapy/all.py:python3-scapy
/usr/lib/python3/dist-packages/cryptography/__init__.py:python3-cryptography
/usr/include/stdlib.h:libc6-dev
/usr/lib/ipsec/plugins/libstrongswan-socket-default.so:strongswan-libcharon
/usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so:libcharon-extra-plugins
/usr/lib/ipsec/plugins/libstrongswan-openssl.so:libstrongswan-standard-plugins
'

# The networking tools live where an ordinary user's PATH does not look.
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
bin="$PWD/build/tools/bin"

missing_packages() {
	local entry
	for entry in $needed; do
		command -v "${entry%%:*}" >/dev/null 2>&1 || echo "${entry##*:}"
	done
	for entry in $needed_files; do
		[ -e "${entry%%:*}" ] || echo "${entry##*:}"
	done
}

debian() {
	local missing
	missing=$(missing_packages | sort -u | tr '\n' ' ')
	[ -n "$missing" ] || return 0
	if ! command -v apt-get >/dev/null 2>&1; then
		echo "install-tools: this is not Debian; please install what these packages hold: $missing" >&2
		return 0
	fi
	if [ "$(id -u)" -ne 0 ]; then
		echo "install-tools: missing, and installing needs root: $missing" >&2
		echo "install-tools: run as root: apt-get install --no-install-recommends $missing" >&2
		return 0
	fi
	echo "install-tools: installing $missing" >&2
	mkdir -p build/tools
	export DEBIAN_FRONTEND=noninteractive
	# tshark asks whether users without root may capture: no.
	echo 'wireshark-common wireshark-common/install-setuid boolean false' | debconf-set-selections || true
	local log=build/tools/apt.log
	# shellcheck disable=SC2086 # a list of package names
	if ! { apt-get update && apt-get install -y --no-install-recommends $missing; } >"$log" 2>&1; then
		tail -n 30 "$log" >&2
		echo "install-tools: apt-get failed; the whole log is $log" >&2
		return 1
	fi
	missing=$(missing_packages | sort -u | tr '\n' ' ')
	if [ -n "$missing" ]; then
		echo "install-tools: apt-get succeeded, and these are still not found: $missing" >&2
		return 1
	fi
}

# strongSwan's daemon. Its package brings a system service, so the program is
# taken out of it and the package is not installed.
charon() {
	local dir=build/tools/charon-systemd log=$PWD/build/tools/charon.log
	if [ "$(id -u)" -ne 0 ] || [ -x /usr/sbin/charon-systemd ] || [ -x "$dir/usr/sbin/charon-systemd" ] || ! command -v apt-get >/dev/null 2>&1; then
		return 0
	fi
	echo "install-tools: unpacking charon-systemd" >&2
	mkdir -p "$dir"
	if ! (cd "$dir" && apt-get update &&
		apt-get -o APT::Sandbox::User=root download "charon-systemd=$(dpkg-query -W -f '${Version}' libstrongswan)" &&
		dpkg-deb -x charon-systemd_*.deb . && rm charon-systemd_*.deb) >"$log" 2>&1; then
		tail -n 30 "$log" >&2
		echo "install-tools: charon-systemd could not be had; the whole log is $log" >&2
		return 1
	fi
}

# is_version PROGRAM VERSION: the program was built from that version of its module.
is_version() {
	go version -m "$1" 2>/dev/null | awk -v want="$2" '$1 == "mod" && $3 == want { found = 1 } END { exit !found }'
}

# go_tool NAME MODULE VERSION: puts the program into build/tools/bin. A build of
# the same version that `go install` made for the user before is linked instead.
go_tool() {
	local name=$1 package=$2 version=$3 gobin found
	gobin=$(go env GOBIN)
	[ -n "$gobin" ] || gobin=$(go env GOPATH)/bin
	for found in "$bin/$name" "$gobin/$name"; do
		if [ -x "$found" ] && is_version "$found" "$version"; then
			[ "$found" = "$bin/$name" ] || { mkdir -p "$bin" && ln -sf "$found" "$bin/$name"; }
			return 0
		fi
	done
	mkdir -p "$bin"
	echo "install-tools: building $name $version (a few minutes when nothing is cached)" >&2
	local log="build/tools/$name.log"
	if ! GOBIN="$bin" GOFLAGS=-buildvcs=false go install "$package@$version" >"$log" 2>&1; then
		tail -n 30 "$log" >&2
		return 1
	fi
}

case "${1:-}" in
'')
	debian
	charon
	;;
--lint) go_tool golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint "$golangci_lint_version" ;;
--bench) go_tool benchstat golang.org/x/perf/cmd/benchstat "$benchstat_version" ;;
*)
	echo "usage: scripts/install-tools.sh [--lint | --bench]" >&2
	exit 2
	;;
esac
