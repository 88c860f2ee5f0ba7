# The targets that people use. `make` alone lists them.

# A clone may belong to another user than the one who builds: no version control
# stamp is asked for.
export GOFLAGS := $(strip $(GOFLAGS) -buildvcs=false)

FUZZTIME ?= 10m
BENCH    ?= .
# Two rounds show the ladder in four minutes; take COUNT=6 to compare versions.
COUNT    ?= 2
BENCHTIME ?= 0.3s

.DEFAULT_GOAL := help
.PHONY: help build demo test check fuzz bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## static programs into bin/
	CGO_ENABLED=0 go build -trimpath -o bin/ ./cmd/...

demo: build ## two gateways and two hosts on this machine: traffic, figures, what the wire saw
	@bin/adit demo

test: ## every tier; installs what the tests need; ends with one summary line
	@scripts/test.sh

check: ## fast, before a commit: build, vet, lint, unit tests
	@scripts/test.sh -tiers build,lint,unit

fuzz: ## every fuzz target for FUZZTIME (10m)
	@scripts/test.sh -tiers build,fuzz-short -fuzztime $(FUZZTIME)

bench: ## the ladder, COUNT (2) times, BENCH selects; printed as a table by benchstat
	@scripts/install-tools.sh --bench
	@mkdir -p build/bench
	go test -run '^$$' -bench '$(BENCH)' -benchtime $(BENCHTIME) -count $(COUNT) -timeout 30m ./bench | tee build/bench/new.txt
	@build/tools/bin/benchstat build/bench/new.txt

clean: ## remove what was built
	rm -rf bin build
