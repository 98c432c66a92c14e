# diskvault: the README's commands, and the developers'.
GO ?= go
# What is shipped is pure Go, so that is what is built and tested.
export CGO_ENABLED = 0
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)

.PHONY: build demo test lint fuzz simulate bench bench-peers clean

build: ## the binary, static, in ./bin
	$(GO) build -trimpath -ldflags "-X github.com/diskvault/diskvault/cli.version=$(VERSION)" -o bin/diskvault ./cmd/diskvault

demo: build ## the whole story on a disk made for it, in a temporary folder
	./bin/diskvault demo

test: ## installs what the tests need, and runs them all
	./test/setup.sh
	$(GO) test ./...
	cd test/sdk && $(GO) test ./...

lint: ## gofmt, vet, staticcheck, and govulncheck where its data can be reached
	./test/lint.sh

fuzz: ## every fuzz target for FUZZTIME (default 20s) each
	./test/fuzz.sh

simulate: ## SEEDS (default 5000) worlds of writers, collectors and misfortunes on one store
	./test/simulate.sh

bench-peers: ## installs restic, kopia and Borg
	./bench/peers.sh

bench: bench-peers ## diskvault beside its peers, in one run; half an hour, 30 GB
	$(GO) run ./bench all $(BENCHFLAGS)

clean:
	rm -rf bin
