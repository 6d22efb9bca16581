# make help lists what there is. Every target sets up what it needs itself.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

GO           ?= go
CACHE        := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/twinspan
LINT_VERSION := v2.15.0
LINT         := $(CACHE)/tools/golangci-lint-$(LINT_VERSION)/golangci-lint
VERSION      := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS      := -X main.version=$(VERSION)

# What the targets take: make demo FLAVOR=mariadb1011 KEEP=1, make soak N=200 …
FLAVOR   ?= mysql97
KEEP     ?=
SEED     ?=
N        ?= 100
FUZZTIME ?= 30s
PKG      ?= ./...
RUN      ?= .
COUNT    ?= 1
SHORT    ?= -short
PART     ?=
SPELL    ?=
ONLY     ?=
PROFILE  ?=
ENGINE   ?=
ROUNDS   ?=
DURATION ?=
MODE     ?=

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z][a-z0-9-]*:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  make demo FLAVOR=mariadb1011    FLAVOR is mysql97, mariadb1011 or mariadb118"
	@echo "  make demo KEEP=1                leaves everything running and says how to look at it"
	@echo "  make unit PKG=./log/... RUN=X   some packages, some tests, with the race detector"
	@echo "  make e2e SEED=7 RUN=X           replays a seed"
	@echo "  make chaos RUN=kill SEED=7      some scenarios of the log's, and their schedule again"
	@echo "  make prop N=1 SEED=7 MODE=row   replays one history; prop-live FLAVOR=mariadb1011 takes one server"
	@echo "  make soak N=200                 end-to-end histories in a loop, N of them"

.PHONY: go-version
go-version:
	@scripts/go-version.sh $(GO)

.PHONY: build
build: go-version ## bin/twinspan
	@CGO_ENABLED=0 $(GO) build -trimpath -ldflags "$(LDFLAGS)" -o bin/twinspan ./cmd/twinspan

.PHONY: servers
servers: ## the MySQL, MariaDB and NATS servers of the tests, into the cache
	@scripts/servers.sh
	@GO=$(GO) scripts/nats.sh

.PHONY: test
test: ## everything: lint, unit tests with the race detector, fuzz smoke, end to end
	@scripts/test.sh

.PHONY: unit
unit: go-version servers ## unit tests with the race detector (PKG, RUN, COUNT; SHORT= for all their rounds)
	@# Whole clusters in one process want the machine for themselves: one package of log/ at a time.
	@status=0; all=$$($(GO) list $(PKG) | grep -v /test/e2e); \
	others=$$(echo "$$all" | grep -v '/twinspan/log' || true); logs=$$(echo "$$all" | grep '/twinspan/log' || true); \
	[ -z "$$others" ] || $(GO) test -race $(SHORT) -count=$(COUNT) -run '$(RUN)' -timeout 15m $$others || status=1; \
	[ -z "$$logs" ] || $(GO) test -p 1 -race $(SHORT) -count=$(COUNT) -run '$(RUN)' -timeout 15m $$logs || status=1; \
	exit $$status

.PHONY: e2e
e2e: build servers ## end-to-end tests: built binary, real servers (RUN, SEED)
	SEED=$(SEED) $(GO) test -count=1 -v -run '$(RUN)' -timeout 30m ./test/e2e

.PHONY: soak
soak: build servers ## N random histories with crashes, end to end (N, RUN, SEED)
	SEED=$(SEED) SOAK=$(N) $(GO) test -count=1 -v -run '$(RUN)' -timeout 0 ./test/e2e

.PHONY: sim
sim: go-version ## the log's protocol in a simulated world: N schedules (default 100000), SEED, every seeded bug
	$(GO) run ./log/sim/cmd -n $(if $(filter file,$(origin N)),100000,$(N)) $(if $(SEED),-seed $(SEED))

.PHONY: prop
prop: go-version servers ## random histories through dispatcher and lanes against a serial oracle: N (default 100000), SEED, MODE, every seeded bug
	@# The whole applier with its goroutines over a target that fails at random, first: RESULT comes last.
	$(if $(filter file,$(origin N)),$(GO) test -count=2 -run '^TestHostileBackend$$' -timeout 20m ./applier)
	$(GO) run ./test/prop -n $(if $(filter file,$(origin N)),100000,$(N)) $(if $(SEED),-seed $(SEED)) $(if $(MODE),-mode '$(MODE)')

.PHONY: prop-live
prop-live: build servers ## random histories on real servers beside native replication, with kill -9 (N, SEED, FLAVOR)
	$(GO) run ./test/prop/live -n $(if $(filter file,$(origin N)),20,$(N)) $(if $(SEED),-seed $(SEED)) $(if $(filter-out file,$(origin FLAVOR)),-flavor $(FLAVOR))

.PHONY: demo
demo: build ## two cities on this machine: load, crashes, and a comparison row by row (FLAVOR, KEEP, SEED)
	@scripts/demo.sh $(FLAVOR) $(if $(KEEP),-keep) $(if $(SEED),-seed $(SEED))

.PHONY: bench
bench: build servers ## ratios from one run: decode, append, apply (PART)
	$(GO) run ./test/bench $(PART)

.PHONY: chaos
chaos: build ## real processes of a cluster killed, frozen, cut off, wiped (ROUNDS, RUN, SEED, ENGINE, DURATION)
	@mkdir -p bin && $(GO) build -o bin/chaos ./test/chaos
	@bin/chaos $(if $(ROUNDS),-rounds $(ROUNDS)) $(if $(filter-out .,$(RUN)),-run '$(RUN)') $(if $(SEED),-seed $(SEED)) \
	  $(if $(ENGINE),-engine $(ENGINE)) $(if $(DURATION),-duration $(DURATION)) $(if $(KEEP),-keep)

.PHONY: bench-log
bench-log: build go-version ## the replicated log beside JetStream R3, and its own figures (ONLY, ROUNDS, SPELL, WINDOWS, PROFILE)
	@GO=$(GO) scripts/nats.sh
	$(GO) run ./test/bench $(if $(ROUNDS),-rounds $(ROUNDS)) -spell $(or $(SPELL),4s) $(if $(WINDOWS),-windows $(WINDOWS)) $(if $(ONLY),-only $(ONLY)) $(if $(PROFILE),-profile $(PROFILE)) log

.PHONY: bench-apply
bench-apply: build servers ## a backlog applied beside native replication: rows/s, CPU and memory, exit 3 below a target (FLAVOR, WORKLOAD, ROUNDS, SCALE, PROFILE)
	$(GO) run ./test/bench -strict -rounds $(or $(ROUNDS),0) -scale $(if $(SCALE),$(SCALE),1) -workload '$(WORKLOAD)' $(if $(filter-out file,$(origin FLAVOR)),-flavor $(FLAVOR)) $(if $(PROFILE),-profile $(PROFILE)) apply

.PHONY: bench-lag
bench-lag: build servers ## end-to-end latency at 1,000 transactions/s beside native replication (ROUNDS, SPELL, DELAYS, ATOMICITY, RATE)
	$(GO) run ./test/bench $(if $(ROUNDS),-rounds $(ROUNDS)) $(if $(SPELL),-spell $(SPELL)) $(if $(DELAYS),-delays $(DELAYS)) $(if $(ATOMICITY),-atomicity $(ATOMICITY)) $(if $(RATE),-rate $(RATE)) lag

.PHONY: fuzz
fuzz: go-version ## every fuzz target for FUZZTIME (PKG, FUZZTIME)
	@GO=$(GO) scripts/fuzz.sh $(FUZZTIME) $(PKG)

.PHONY: lint
lint: go-version $(LINT) ## gofmt, go vet, golangci-lint, shell syntax
	@scripts/lint.sh $(LINT)

# Built with the Go at hand: a linter refuses code newer than its own compiler.
$(LINT):
	@echo "lint: building golangci-lint $(LINT_VERSION) (once, about a minute)"
	@GOBIN=$(dir $(LINT)) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)

.PHONY: fmt
fmt: ## gofmt everything
	@gofmt -w $$(git ls-files '*.go')

.PHONY: clean
clean: ## remove what was built, and data directory templates; the servers stay
	rm -rf bin "$${TWINSPAN_SERVERS:-$(CACHE)/servers}/templates"
