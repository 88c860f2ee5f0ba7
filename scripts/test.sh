#!/usr/bin/env bash
# What `make test` runs: brings the tools, then hands over to scripts/testrun,
# which runs every tier and ends with "N passed, N failed, N skipped".
# Arguments go to testrun: -tiers unit,root  -fuzztime 5s  -unprivileged  -list
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
scripts/install-tools.sh
mkdir -p build/test
go build -buildvcs=false -o build/test/testrun ./scripts/testrun
exec build/test/testrun "$@"
