# make test   brings up the servers that the tests need, then runs all tests under the race detector
# make lint   everything that can be said without running the code
# make help   lists the targets

GO ?= go
TIMEOUT ?= 15m
BENCHTIME ?= 1s
BENCHCOUNT ?= 5
SEED ?= 1
FOR ?= 3m
ORDERS ?= 30

# Tools are built once, from the versions that tools/go.mod pins, into a folder that git ignores.
BIN := $(CURDIR)/bin
USERPB := examples/shop/users/userpb

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

.PHONY: services
services: ## bring up RabbitMQ, PostgreSQL, Redis and MongoDB's protocol, where they do not answer
	tools/services up

.PHONY: services-down
services-down: ## stop the servers that `services` started
	tools/services down

.PHONY: test
test: ## run all tests with -race against real servers
	GO="$(GO)" TIMEOUT=$(TIMEOUT) tools/test

.PHONY: test-deep
test-deep: ## search further than test does, without -race: more faults a schedule, more seeds; and the other modules' tests
	-tools/services up
	$(GO) test -run 'Explore|Finds|Replay|EverySchedule' ./saga/sagatest ./examples/shop/orders # two faults a schedule
	$(GO) test ./examples/shop/simulation # 30 seeds, and the planted bugs
	eval "$$(tools/services env)" && $(GO) -C benchmarks test ./...
	$(GO) -C tools test ./...

.PHONY: test-short
test-short: ## run the tests once, without -race, with the servers that answer already
	eval "$$(tools/services env)" && $(GO) test -short -timeout $(TIMEOUT) ./...

.PHONY: simulate
simulate: SEEDS ?= 1000
simulate: ## run the shop under the faults of SEEDS seeds, from SEED on, with ORDERS orders each, in virtual time
	$(GO) test -timeout 0 ./examples/shop/simulation -run '^TestShopKeepsItsPromisesUnderFaults$$' -v \
		-seed $(SEED) -seeds $(SEEDS) -orders $(ORDERS)

.PHONY: chaos
chaos: SEEDS ?= 1
chaos: ## run two replicas of every service on clusters for FOR, under the faults of SEEDS schedules, from SEED on
	-tools/services up
	eval "$$(tools/services env)"; for seed in $$(seq $(SEED) $$(($(SEED) + $(SEEDS) - 1))); \
		do $(GO) test -tags chaos -timeout 0 -count 1 ./examples/shop -run '^TestChaos$$' -v -chaos $(FOR) -chaos-seed $$seed || exit 1; done

.PHONY: chaos-short
chaos-short: FOR = 75s
chaos-short: SEED = 43
chaos-short: chaos ## run one short schedule of all kinds of faults, and make connections silent one kind after the other
	eval "$$(tools/services env)"; $(GO) test -tags chaos -timeout 10m -count 1 ./examples/shop -run '^TestSilentConnectionsAreReplaced$$' -v

.PHONY: cover
cover: ## run all tests and show which lines no test reaches, in coverage.html
	-tools/services up
	eval "$$(tools/services env)" && $(GO) test -timeout $(TIMEOUT) -coverpkg=./... -coverprofile=coverage.out ./...
	$(GO) tool cover -html=coverage.out -o coverage.html
	@$(GO) tool cover -func=coverage.out | tail -n 1

.PHONY: fmt
fmt: $(BIN)/golangci-lint ## format the code
	$(BIN)/golangci-lint fmt ./...

.PHONY: lint
lint: $(BIN)/golangci-lint $(BIN)/actionlint docs generated manifests ## formatting, module files, vet and linters, workflows, links, generated code, manifests
	$(BIN)/actionlint .github/workflows/*.yml
	$(GO) mod tidy -diff
	$(GO) -C benchmarks mod tidy -diff
	$(GO) vet -tags live ./authn/secrets/vault # which no run of all tests compiles
	$(GO) -C benchmarks vet -tags load . # neither this
	$(BIN)/golangci-lint run ./...
	cd benchmarks && $(BIN)/golangci-lint run --config ../.golangci.yml ./...
	cd tools && $(BIN)/golangci-lint run --config ../.golangci.yml ./...

.PHONY: docs
docs: ## check the links of all pages, and that the README's code is code that is tested
	$(GO) test ./internal/docstest

.PHONY: manifests
manifests: $(BIN)/kustomize $(BIN)/kubectl-validate $(BIN)/crds ## check the manifests by the schemas of Kubernetes and of its extensions
	PATH="$(BIN):$$PATH" SILLAR_REQUIRE_SERVICES=1 $(GO) test -tags manifests -run '^TestManifestsFitTheSchemas$$' ./examples/shop/deploy

.PHONY: generate
generate: $(BIN)/buf $(BIN)/protoc-gen-go $(BIN)/protoc-gen-go-grpc ## write the generated code anew
	cd $(USERPB) && PATH="$(BIN):$$PATH" buf lint && PATH="$(BIN):$$PATH" buf generate

.PHONY: generated
generated: $(BIN)/buf $(BIN)/protoc-gen-go $(BIN)/protoc-gen-go-grpc ## check that the generated code is up to date
	@dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && cd $(USERPB) && PATH="$(BIN):$$PATH" buf generate -o "$$dir" && \
		for f in "$$dir"/*.go; do diff -u "$${f##*/}" "$$f" || { echo "run: make generate"; exit 1; }; done

.PHONY: bench
bench: ## measure ourselves beside our peers, into benchmarks/RESULTS.md
	-tools/services up
	eval "$$(tools/services env)" && $(GO) -C tools run ./bench -root .. -benchtime $(BENCHTIME) -count $(BENCHCOUNT)

.PHONY: vuln
vuln: $(BIN)/govulncheck ## known vulnerabilities in what is called
	$(BIN)/govulncheck ./...

$(BIN)/golangci-lint: PACKAGE := github.com/golangci/golangci-lint/v2/cmd/golangci-lint
$(BIN)/govulncheck: PACKAGE := golang.org/x/vuln/cmd/govulncheck
$(BIN)/buf: PACKAGE := github.com/bufbuild/buf/cmd/buf
$(BIN)/protoc-gen-go-grpc: PACKAGE := google.golang.org/grpc/cmd/protoc-gen-go-grpc
$(BIN)/kustomize: PACKAGE := sigs.k8s.io/kustomize/kustomize/v5
$(BIN)/benchstat: PACKAGE := golang.org/x/perf/cmd/benchstat

.PHONY: benchstat
benchstat: $(BIN)/benchstat ## build benchstat into bin, to compare two runs of one benchmark

$(BIN)/golangci-lint $(BIN)/govulncheck $(BIN)/buf $(BIN)/protoc-gen-go-grpc $(BIN)/benchstat $(BIN)/kustomize: tools/go.mod
	$(GO) -C tools build -o $@ $(PACKAGE)
	@touch $@

# A module of its own, tools/deploy: these need older versions of what the others need.
$(BIN)/actionlint: PACKAGE := github.com/rhysd/actionlint/cmd/actionlint
$(BIN)/kubectl-validate: PACKAGE := sigs.k8s.io/kubectl-validate
$(BIN)/actionlint $(BIN)/kubectl-validate: tools/deploy/go.mod
	$(GO) -C tools/deploy build -o $@ $(PACKAGE)
	@touch $@

# The schemas of what clusters do not have by themselves, from the modules of their projects.
CRDS := sigs.k8s.io/gateway-api@v1.4.0 github.com/prometheus-operator/prometheus-operator@v0.85.0
$(BIN)/crds: Makefile
	@mkdir -p $@
	@cd $(BIN) && for m in $(CRDS); do dir=$$(GOFLAGS=-mod=mod $(GO) mod download -json $$m | sed -n 's/.*"Dir": "\(.*\)",*/\1/p'); \
		cp -f "$$dir"/config/crd/standard/*_gateways.yaml "$$dir"/config/crd/standard/*_httproutes.yaml $@/ 2>/dev/null || \
		cp -f "$$dir"/example/prometheus-operator-crd/*_podmonitors.yaml "$$dir"/example/prometheus-operator-crd/*_prometheusrules.yaml $@/; done
	@chmod u+w $@/* && touch $@

.PHONY: kind
kind: ## make a local cluster with kind, with the shop in it, and play the demonstration there
	examples/shop/deploy/kind.sh

# Built from the library's own go.mod: the generator and the runtime are one version.
$(BIN)/protoc-gen-go: go.mod
	$(GO) build -o $@ google.golang.org/protobuf/cmd/protoc-gen-go
	@touch $@

# The tools by their short names: make bin/kustomize
bin/%: $(BIN)/% ;
