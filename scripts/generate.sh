#!/bin/sh
# Makes the generated code again: internal/ctl/controlv1 from the control API's
# proto file. The result is committed, so only who changes the proto file needs
# this. The generators are pinned in tools/go.mod; protoc is Debian's
# protobuf-compiler.
set -eu
cd "$(dirname "$0")/.."

if ! command -v protoc >/dev/null; then
	echo "scripts/generate.sh: protoc is missing: apt-get install protobuf-compiler" >&2
	exit 1
fi
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
(cd tools && GOBIN=$bin go install tool)

protoc -I internal/ctl/proto \
	--plugin="$bin/protoc-gen-go" --go_out=. --go_opt=module=github.com/adit-ipsec/adit \
	--plugin="$bin/protoc-gen-connect-go" --connect-go_out=. --connect-go_opt=module=github.com/adit-ipsec/adit \
	--connect-go_opt=package_suffix= --connect-go_opt=simple \
	adit/control/v1/control.proto
