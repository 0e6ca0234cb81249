# Hotbed's verbs. `make` alone lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
# The profile that `demo`, `run` and `test` share, so that they share one build.
CARGO ?= cargo
DEMO_CACHE ?= $(CURDIR)/target/demo-cache
export HOTBED_DEMO_CACHE = $(DEMO_CACHE)

.PHONY: help
help: ## List the verbs.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

.PHONY: setup
setup: setup-run ## Install what is missing: Debian packages (a browser and a registry for tests among them), octokit, schemathesis, and a Docker engine if no daemon answers.
	@scripts/ensure-packages --no-services prometheus chromium docker-registry openssl jq docker-compose binutils
	@scripts/ensure-node-parts
	@scripts/ensure-python-parts
	@scripts/ensure-cargo-deb >/dev/null

.PHONY: setup-run
setup-run:
	@scripts/ensure-packages git ca-certificates gcc libc6-dev file curl mmdebstrap python3 python3-pip python3-venv
	@scripts/ensure-docker

.PHONY: agent
agent: ## Build the agent, one static binary.
	@scripts/build-agent

.PHONY: build
build: ## Build `hotbed` with the agent inside, for development.
	@HOTBED_AGENT_BINARY=$$(scripts/build-agent) && export HOTBED_AGENT_BINARY && $(CARGO) build --locked -p orchestrator

.PHONY: release
release: ## Build `hotbed` with the agent inside, optimised.
	@HOTBED_AGENT_BINARY=$$(scripts/build-agent) && export HOTBED_AGENT_BINARY && $(CARGO) build --locked --release -p orchestrator

# What `demo` and `run` work on, and which GitHub they work against, if any.
DEMO_OF = $(if $(REPO),--repo '$(REPO)' --base '$(BASE)') $(if $(CONFIG),--from '$(CONFIG)') \
	$(if $(FORGE),--github-standin target/debug/github-standin)
ifneq ($(filter-out github-standin,$(FORGE)),)
$(error FORGE=$(FORGE) is not known: leave it out, or say FORGE=github-standin)
endif

.PHONY: demo
demo: setup-run build $(FORGE) ## Walk the whole job once, for real, and leave nothing behind. REPO=… BASE=…, or CONFIG=my.yaml; FORGE=github-standin.
	@target/debug/hotbed demo $(DEMO_OF)

.PHONY: run
run: setup-run build $(FORGE) ## The demo's server, staying up for you to look around.
	@target/debug/hotbed demo --stay $(DEMO_OF)

.PHONY: github-standin
github-standin:
	@$(CARGO) build --locked -p tests --bin github-standin

.PHONY: observe
observe: setup build ## A Hotbed under load, Prometheus beside it, and the dashboards. SECONDS=90.
	@python3 dashboards/observe.py --binary target/debug/hotbed --cache '$(DEMO_CACHE)' --seconds $(or $(SECONDS),90)

.PHONY: dist
dist: setup-run ## The static release binary, its Debian package and the files beside them, in target/dist.
	@scripts/dist target/dist

.PHONY: fuzz
fuzz: ## Fuzz what may come in, until something breaks: TARGET=config. Needs cargo-fuzz; the tests have a bounded run.
	@cd fuzz/targets && $(CARGO) fuzz run --sanitizer none --fuzz-dir . '$(or $(TARGET),config)' -- $(FUZZ_ARGS)

.PHONY: check
check: ## Format, lints and every test: exactly what CI runs.
	$(CARGO) fmt --all --check
	@HOTBED_AGENT_BINARY=$$(scripts/build-agent) && export HOTBED_AGENT_BINARY HOTBED_AGENT=$$HOTBED_AGENT_BINARY && \
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings && \
	$(CARGO) build --locked -p orchestrator && \
	$(CARGO) test --locked --workspace --no-fail-fast

.PHONY: test
test: setup check ## Do all set-up, then `make check`.

.PHONY: bench
bench: setup release ## Measure what is promised; a table, and target/bench.json.
	@HOTBED_AGENT_BINARY=$$(scripts/build-agent) && export HOTBED_AGENT_BINARY HOTBED_AGENT=$$HOTBED_AGENT_BINARY && \
	$(CARGO) bench --locked -p tests --bench promises

.PHONY: fmt
fmt: ## Format the code.
	$(CARGO) fmt --all

.PHONY: clean-demo
clean-demo: ## Remove what an interrupted demo or test left in the engine.
	@scripts/clean-engine
