# make test   sets up the servers that the tests need, then runs all tests under the race detector
# make lint   formatting, module files, vet
# make help   lists the targets

GO ?= go
TIMEOUT ?= 15m

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.PHONY: services
services: ## bring up RabbitMQ, PostgreSQL, Redis and MongoDB's protocol, where they do not answer
	tools/services up

.PHONY: services-down
services-down: ## stop the servers that `services` started
	tools/services down

.PHONY: test
test: ## run all tests with -race against real servers
	-tools/services up
	eval "$$(tools/services env)" && $(GO) test -race -timeout $(TIMEOUT) ./...

.PHONY: fmt
fmt: ## format the code
	gofmt -w .

.PHONY: lint
lint: ## formatting, module files, vet
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo "run: make fmt"; exit 1; }
	$(GO) mod tidy -diff
	$(GO) vet ./...
