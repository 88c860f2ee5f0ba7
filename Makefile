# The targets that people use. `make` alone lists them.

# A clone may belong to another user than the one who builds: no version control
# stamp is asked for.
export GOFLAGS := $(strip $(GOFLAGS) -buildvcs=false)

FUZZTIME ?= 10m
BENCH    ?= .
# Two rounds show the ladder in four minutes; take COUNT=6 to compare versions.
COUNT    ?= 2
BENCHTIME ?= 0.3s
# What make record measures against, and which gateway it plans.
RIVALS    ?= wireguard-go,strongswan
PLAN      ?= --peers 50 --calls 200
# What make soak moves, and in which cells: CELLS=faulty, CELLS='offload off'.
BYTES    ?= 20G
CELLS    ?=
JSON     ?=
# Which tests make ikeload runs: ONLY=Rekeys, ONLY='K[0-9]'.
ONLY      ?= .
# How often make roam rebinds a NAT, and how many datagrams a second it sends.
EVERY    ?= 5s
TIMES    ?= 12
RATE     ?= 1000
# Which seeds of the simulator make ikesim runs.
SEEDS    ?= 100000
FIRST    ?= 1

.DEFAULT_GOAL := help
.PHONY: help build demo test check fuzz soak roam ikesim ikeload bench record figures clean

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

soak: ## BYTES (20G) of TCP through two gateways, every byte compared; JSON=1 prints JSON
	@mkdir -p build/soak
	@rm -f build/soak/report.json
	@go test -c -o build/soak/integrity.test ./test/integrity
	@build/soak/integrity.test -test.timeout 0 -full -bytes '$(BYTES)' -cells '$(CELLS)' -progress 10s \
		-report build/soak/report.json $(if $(JSON),>&2; status=$$?; cat build/soak/report.json; exit $$status)

roam: ## a NAT that rebinds EVERY (5s), TIMES (12), under RATE (1000) datagrams a second: what it costs
	@mkdir -p build/roam
	@go test -c -o build/roam/roam.test ./test/roam
	@build/roam/roam.test -test.timeout 0 -test.v -test.run Rebinding -every '$(EVERY)' -times '$(TIMES)' -rate '$(RATE)'

ikesim: ## SEEDS (100000) of gateways in virtual time, from FIRST (1) on; JSON=1 prints JSON
	@mkdir -p build/ikesim
	@rm -f build/ikesim/report.json
	@go test -c -o build/ikesim/ikesim.test ./test/ikesim
	@cd test/ikesim && ../../build/ikesim/ikesim.test -test.timeout 0 -test.run '^TestSeeds$$' -seeds '$(SEEDS)' -first '$(FIRST)' -keep-going 20 -progress 10s \
		-report ../../build/ikesim/report.json $(if $(JSON),>&2; status=$$?; cat ../../build/ikesim/report.json; exit $$status)

ikeload: ## IKE under load, ONLY selects: 11,000 rekeys, 1,000 first flows, floods, hubs, kills; JSON=1 prints JSON
	@mkdir -p build/ikeload
	@rm -f build/ikeload/report.json
	@go test -c -o build/ikeload/ikeload.test ./test/ikeload
	@build/ikeload/ikeload.test -test.timeout 0 -test.v -test.run '$(ONLY)' -full -progress 10s \
		-report build/ikeload/report.json $(if $(JSON),>&2; status=$$?; cat build/ikeload/report.json; exit $$status)

bench: ## the ladder, COUNT (2) times, BENCH selects; printed as a table by benchstat
	@scripts/install-tools.sh --bench
	@mkdir -p build/bench
	go test -run '^$$' -bench '$(BENCH)' -benchtime $(BENCHTIME) -count $(COUNT) -timeout 30m ./bench | tee build/bench/new.txt
	@build/tools/bin/benchstat build/bench/new.txt

record: build ## reference run into bench/results/ and README.md: root, an idle machine, about half an hour
	@test "$$(id -u)" = 0 || { echo "make record raises network namespaces: run it as root"; exit 1; }
	@mkdir -p build/record bench/results
	bin/adit-bench engine --json build/record/engine.json --svg build/record/engine.svg
	bin/adit-bench ike --json build/record/ike.json --svg build/record/ike.svg
	bin/adit-bench tunnel --against $(RIVALS) --json build/record/tunnel.json --svg build/record/tunnel.svg
	bin/adit-bench plan $(PLAN) --json build/record/plan.json --svg build/record/plan.svg
	mv build/record/*.json build/record/*.svg bench/results/
	@$(MAKE) --no-print-directory figures

figures: ## README.md's figures out of bench/results/
	go run ./bench/figures

clean: ## remove what was built
	rm -rf bin build
