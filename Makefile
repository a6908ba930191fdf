# Lintel's tasks; `make help` lists them.
SHELL := /bin/bash
GO ?= go
BIN := bin
LINT_VERSION := v2.15.0
FUZZTIME ?= 8000x
export CGO_ENABLED ?= 0

.PHONY: help build serve test unit conformance lab-test race cover lint fuzz bench deps generate clean

help: ## list the tasks
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

build: ## build bin/lintel, one static binary
	$(GO) build -trimpath -o $(BIN)/lintel ./cmd/lintel

serve: build ## build and run an array with a demo volume on 127.0.0.1:3260
	exec $(BIN)/lintel serve --demo --data-dir .lintel

deps: ## install what the tests need from Debian (initiators, reference target)
	@test/deps.sh

test: deps build ## run every test and print a closing count
	@$(GO) run ./test/summary -- $(GO) test -json -count=1 -timeout 15m ./...

unit: ## run the tests that need nothing but Go
	@$(GO) run ./test/summary -- $(GO) test -json -count=1 -short ./...

conformance: deps build ## run libiscsi's conformance suite in all its variants
	@$(GO) run ./test/summary -skips -- $(GO) test -json -count=1 -timeout 30m ./test/conformance

lab-test: build ## run the tests with real Linux hosts (builds their kernel once: six to ten minutes)
	@test/lab-deps.sh
	@$(BIN)/lintel lab build
	@LINTEL_LAB=1 $(GO) run ./test/summary -skips -tests -- $(GO) test -json -count=1 -timeout 25m ./lab/...

race: deps ## run the tests under the race detector
	@CGO_ENABLED=1 $(GO) run ./test/summary -- $(GO) test -race -json -count=1 -short -timeout 20m ./...

cover: ## measure the coverage of the data plane and check its floor
	@test/cover.sh

lint: $(BIN)/golangci-lint ## run the linters, layer rules included
	$(BIN)/golangci-lint run --allow-parallel-runners ./...

$(BIN)/golangci-lint:
	GOBIN=$(CURDIR)/$(BIN) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)

fuzz: ## run every fuzz target for FUZZTIME: a number of inputs (8000x) or a time (1m)
	@test/fuzz.sh $(FUZZTIME)

bench: deps build ## compare with tgtd and with the bare floor; prints one table
	$(GO) run ./test/bench

generate: build ## remake generated code, man pages and the conformance table
	$(GO) generate ./...
	$(BIN)/lintel docs man docs/man
	$(GO) run ./test/table > docs/conformance-table.md

clean: ## remove what was built
	rm -rf $(BIN)
