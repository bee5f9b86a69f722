# Everything that is done with this repository. `make help` lists it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

TARGET  := x86_64-unknown-linux-gnu
RELEASE := target/$(TARGET)/release
BIN     := $(RELEASE)/ringmaster
SOCKET  := /var/run/docker.sock
COMPOSE_FILE := deploy/docker-compose.yml
MANIFEST ?= manifests/replicas.yaml

# An engine that answers, the docker CLI to build images with, and one of the two composes; else processes.
ENGINE  := $(shell [ -S $(SOCKET) ] && curl -sf --max-time 5 --unix-socket $(SOCKET) http://localhost/_ping 2>/dev/null)
COMPOSE := $(shell if docker compose version >/dev/null 2>&1; then echo docker compose; elif command -v docker-compose >/dev/null; then echo docker-compose; fi)
MODE    ?= $(if $(and $(ENGINE),$(COMPOSE),$(shell command -v docker)),docker,process)

# Looked for when it is used, so that what `deps` has just installed counts; Debian keeps it where only root looks.
HAPROXY = $(shell PATH=$$PATH:/usr/sbin command -v haproxy)
NGINX = $(shell PATH=$$PATH:/usr/sbin command -v nginx)
CHROMIUM = $(shell command -v chromium >/dev/null && command -v chromedriver)
PROMETHEUS = $(shell command -v prometheus)

# Where the process runtime's daemon keeps its state and its log.
LOCAL := .ringmaster

.PHONY: help
help: ## Show this help
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  \033[1m%-16s\033[0m %s\n", $$1, $$2}' Makefile

## --- use it ---------------------------------------------------------------------------------------------

.PHONY: up up-docker up-process build images monitoring
up: ## Build and start everything, apply the manifest, wait until all replicas are ready
	@$(MAKE) up-$(MODE)
	@$(BIN) apply -f $(MANIFEST)
	@echo
	@echo "  data plane   http://127.0.0.1:5000/home"
	@echo "  live page    http://127.0.0.1:5001/"
	@echo "  metrics      http://127.0.0.1:5001/metrics"
	@echo
	@echo "Three things to try:"
	@echo "  curl localhost:5000/home                                     # a replica answers"
	@echo "  edit $(MANIFEST) to 5 replicas, then: make apply"
	@echo "  $(BIN) kill web-1 && $(BIN) get replicas"

up-docker: images
	@echo "starting with Docker ($(COMPOSE))"
	@$(COMPOSE) -p ringmaster -f $(COMPOSE_FILE) up -d --remove-orphans
	@$(MAKE) wait-for-daemon
	@$(MAKE) wait-for-proxy
	@$(MAKE) monitoring

# Images that no registry has: where they cannot be pulled in a minute, everything else works without.
monitoring:
	@if timeout 60 $(COMPOSE) -p ringmaster -f $(COMPOSE_FILE) --profile monitoring pull -q >/dev/null 2>&1; then \
		$(COMPOSE) -p ringmaster -f $(COMPOSE_FILE) --profile monitoring up -d; \
		echo "  Prometheus   http://127.0.0.1:9090/"; echo "  Grafana      http://127.0.0.1:3000/"; \
	else echo "Prometheus and Grafana are left out: their images cannot be pulled here"; fi

up-process: build
	@echo "no Docker engine with compose here: starting with the process runtime"
	@mkdir -p $(LOCAL)
	@$(MAKE) stop-process
	@nohup setsid $(BIN) serve --runtime process --state-dir $(LOCAL)/state --allow-faults >>$(LOCAL)/daemon.log 2>&1 </dev/null & echo $$! >$(LOCAL)/daemon.pid
	@$(MAKE) wait-for-daemon || { tail -5 $(LOCAL)/daemon.log; exit 1; }

.PHONY: wait-for-daemon wait-for-proxy stop-process
wait-for-daemon:
	@for i in {1..150}; do curl -sf --max-time 2 http://127.0.0.1:5001/healthz >/dev/null && exit 0; sleep 0.1; done; \
		echo "the daemon does not answer on 127.0.0.1:5001: see make logs"; exit 1

# Its own container: ready means that it follows the controller, or routes by what it kept.
wait-for-proxy:
	@for i in {1..150}; do curl -sf --max-time 2 http://127.0.0.1:5002/readyz >/dev/null && exit 0; sleep 0.1; done; \
		echo "the data plane does not answer on 127.0.0.1:5002: see make logs"; exit 1

stop-process:
	@if [ -f $(LOCAL)/daemon.pid ] && grep -qs ringmaster /proc/$$(cat $(LOCAL)/daemon.pid)/comm; then \
		pid=$$(cat $(LOCAL)/daemon.pid); kill $$pid; while [ -d /proc/$$pid ]; do sleep 0.05; done; fi
	@rm -f $(LOCAL)/daemon.pid

build:
	@cargo build --release --locked -p ringmaster -p ringmaster-replica

# FROM scratch, out of the static binaries: no registry is needed. The same binary gives the same image.
images: build ## Build the images ringmaster/ringmaster:dev and ringmaster/replica:dev
	@for name in ringmaster replica; do \
		context=target/images/$$name; mkdir -p $$context; \
		binary=$$([ $$name = replica ] && echo ringmaster-replica || echo ringmaster); \
		install -p -m 0755 $(RELEASE)/$$binary $$context/$$binary; \
		echo "building ringmaster/$$name:dev"; \
		docker build -q -t ringmaster/$$name:dev -f deploy/$$name.Dockerfile $$context 2>&1 | grep -v -i -e deprecated -e buildx -e '^$$' -e BuildKit; \
	done

.PHONY: apply down logs ps clean
apply: ## Apply manifests/replicas.yaml (MANIFEST=… for another) and wait until it is so
	@$(BIN) apply -f $(MANIFEST)

down: ## Remove the replicas, the daemon and its state
	@if curl -sf --max-time 2 http://127.0.0.1:5001/healthz >/dev/null; then $(BIN) delete --all; fi
	@if [ $(MODE) = docker ]; then \
		$(COMPOSE) -p ringmaster -f $(COMPOSE_FILE) --profile monitoring down -v --remove-orphans; \
		docker network ls -q --filter name=^net1$$ --filter label=io.ringmaster.owner=ringmaster | xargs -r docker network rm; \
	fi
	@$(MAKE) stop-process
	@rm -rf $(LOCAL)

logs: ## Show the daemon's log
	@if [ -f $(LOCAL)/daemon.log ]; then tail -n 100 $(LOCAL)/daemon.log; \
		else $(COMPOSE) -p ringmaster -f $(COMPOSE_FILE) logs --tail=100; fi

ps: ## List the replicas
	@$(BIN) get replicas -o wide

clean: ## Remove what was built
	@cargo clean
	@rm -rf $(LOCAL)

## --- work on it -----------------------------------------------------------------------------------------

.PHONY: check test deps
check: ## Format, lints, documentation
	@cargo fmt --all --check
	@cargo clippy --release --locked --workspace --all-targets --all-features -- -D warnings
	@RUSTDOCFLAGS="-D warnings" cargo doc --release --locked --workspace --no-deps --quiet

# Tests run with the release profile: a clean clone compiles the dependencies once, for `make up` too.
test: deps ## Run every test; those against a real engine are skipped, and say so, where none answers
	@cargo build --release --locked -p ringmaster-replica
	@RINGMASTER_REQUIRE_ENGINE=$(if $(ENGINE),1,) RINGMASTER_REQUIRE_NGINX=$(if $(NGINX),1,) \
		RINGMASTER_REQUIRE_CHROMIUM=$(if $(CHROMIUM),1,) RINGMASTER_REQUIRE_PROMETHEUS=$(if $(PROMETHEUS),1,) \
		cargo test --release --locked --workspace --all-features $(TESTS)

deps: deps-nginx deps-chromium deps-prometheus ## Look for what the tests use; install it with apt when root on Debian or Ubuntu, else name it
	@if [ -S $(SOCKET) ] && curl -sf --max-time 5 --unix-socket $(SOCKET) http://localhost/_ping >/dev/null; then \
		echo "deps: a Docker engine answers on $(SOCKET)"; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! command -v dockerd >/dev/null; then \
		echo "deps: installing docker.io and docker-compose"; \
		apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y docker.io docker-compose; \
		service docker start || true; \
	else \
		echo "deps: no Docker engine answers on $(SOCKET): install docker.io and docker-compose, or start dockerd."; \
		echo "deps: the engine tests (docker conformance, end to end on docker) are skipped"; \
	fi

# $(call without-service,NAME,WHERE IT IS,PACKAGE,WHAT IS LOST WITHOUT IT). The package would start a service, now and at every
# boot: a policy denies the first for as long as apt runs (unless the machine has a policy of its own, which then
# decides), and the second is disabled.
define without-service
if [ -n "$(2)" ]; then echo "deps: $(1) is here"; \
elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	echo "deps: installing $(3), without its service"; \
	policy=/usr/sbin/policy-rc.d; \
	if [ ! -e $$policy ]; then \
		trap "rm -f $$policy" EXIT; printf '#!/bin/sh\nexit 101\n' >$$policy; chmod 0755 $$policy; \
	fi; \
	if apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $(3); then \
		update-rc.d $(1) disable || true; \
	else echo "deps: $(3) cannot be installed: $(4)"; fi; \
else echo "deps: no $(1): install $(3); $(4)"; fi
endef

.PHONY: deps-nginx deps-haproxy deps-prometheus
deps-nginx:
	@$(call without-service,nginx,$(NGINX),nginx-light,the comparison of the ring with nginx is skipped)

deps-haproxy:
	@$(call without-service,haproxy,$(HAPROXY),haproxy,the cost of the data plane is printed without its ratios)

deps-prometheus:
	@$(call without-service,prometheus,$(PROMETHEUS),prometheus,the check of dashboards and rules is skipped)

.PHONY: deps-chromium
deps-chromium:
	@if [ -n "$(CHROMIUM)" ]; then echo "deps: chromium and its driver are here"; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "deps: installing chromium and chromium-driver"; \
		apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
			chromium chromium-driver fonts-dejavu-core || \
		echo "deps: chromium cannot be installed: the tests of the live page in a browser are skipped"; \
	else echo "deps: no chromium: install chromium and chromium-driver; the tests of the live page in a browser are skipped"; fi

.PHONY: dashboards-check
dashboards-check: deps-prometheus ## Run every panel, rule and alert on a real Prometheus that scrapes a real daemon
	@cargo build --release --locked -p ringmaster-replica
	@RINGMASTER_REQUIRE_PROMETHEUS=$(if $(PROMETHEUS),1,) cargo test --release --locked --workspace --all-features --test e2e dashboards:: -- --nocapture

# cargo-fuzz brings flags of its own, which replace those of .cargo/config.toml; nothing in core is unsafe, and without
# the address sanitizer twice as much is tried.
.PHONY: fuzz
FUZZ_SECONDS ?= 60
FUZZ = cargo +nightly fuzz run --sanitizer none --target $(TARGET) --target-dir $(CURDIR)/target/fuzz
FUZZ_LIMITS = -max_total_time=$(FUZZ_SECONDS) -timeout=10 -print_final_stats=1
fuzz: ## Fuzz the formulas, the ring's bytes, the manifest and the HTTP parsers, FUZZ_SECONDS=60 each
	@command -v cargo-fuzz >/dev/null || { echo "make fuzz uses cargo-fuzz: cargo install --locked cargo-fuzz"; exit 1; }
	@mkdir -p crates/core/fuzz/corpus/{formula,manifest,table}
	@cd crates/core && $(FUZZ) formula -- $(FUZZ_LIMITS) -dict=fuzz/dictionaries/formula
	@cd crates/core && $(FUZZ) table -- $(FUZZ_LIMITS)
	@cd crates/core && $(FUZZ) manifest fuzz/corpus/manifest $(CURDIR)/manifests -- $(FUZZ_LIMITS) -dict=fuzz/dictionaries/manifest
	@cd crates/proxy && for target in request_head response_head chunked differential hyper; do \
		$(FUZZ) $$target -- $(FUZZ_LIMITS) -dict=fuzz/dictionaries/http || exit 1; done

.PHONY: sim bench bench-proxy soak a1 a2 a3 a4 report compare
bench: bench-proxy ## Print the figures: the data plane and the ring beside their peers; start, scale, failover, idle cost on the real engine
	@cargo bench --locked -p ringmaster-core --bench ring -- table
	@cargo test --release --locked --workspace --all-features --test ring_policies the_bound -- --nocapture | grep boundedLoad
	@cargo build --release --locked -p ringmaster-replica
	@RINGMASTER_REQUIRE_ENGINE=1 cargo test --release --locked -p ringmaster --test e2e figures -- --nocapture --test-threads=1

# Options: make bench-proxy BENCH='--write crates/proxy/BENCH.md', BENCH=--quick, BENCH='--works A,E --rounds 9'. As root it runs in a
# network namespace of its own: what an engine puts in the way of all packets of the machine costs each proxy the same, and
# makes all ratios look alike.
BENCH ?=
BENCH_PROXY = $(RELEASE)/ringmaster-bench --binary $(BIN) $(BENCH)
bench-proxy: deps-haproxy deps-nginx ## Print what a request costs in the data plane, beside haproxy and nginx
	@cargo build --release --locked --workspace --all-features --bin ringmaster --bin ringmaster-bench
	@if unshare --net true 2>/dev/null; then unshare --net sh -c 'ip link set lo up && exec $(BENCH_PROXY)'; else $(BENCH_PROXY); fi

sim: ## Simulate the controller: 20,000 seeds, our manifests, every single fault of three patterns, and bugs on purpose
	@cargo test --release --locked -p ringmaster-sim --features planted --test sim -- --nocapture

# On the engine: 50 kills of a replica, 50 of the controller during rollouts, 50 rollouts.
SEEDS ?= 200000
soak: ## The long runs: SEEDS=200000 simulations, 100,000 sequences of faults of the planner, 50 of each kind on the engine
	@PROPTEST_CASES=100000 cargo test --release --locked -p ringmaster-core --test plan --test rollout
	@cargo build --release --locked -p ringmaster-replica
	@RINGMASTER_REQUIRE_ENGINE=1 RINGMASTER_KILLS=50 cargo test --release --locked -p ringmaster --test e2e figures::failover -- --nocapture --test-threads=1
	@RINGMASTER_REQUIRE_ENGINE=1 RINGMASTER_ROLLOUTS=50 cargo test --release --locked -p ringmaster --test e2e rollout_figures:: -- --nocapture --test-threads=1
	@RINGMASTER_REQUIRE_ENGINE=1 RINGMASTER_CONTROLLER_KILLS=50 cargo test --release --locked -p ringmaster --test e2e controller_kills -- --nocapture --test-threads=1
	@RINGMASTER_COMMIT=$$(git rev-parse --short HEAD) cargo run --release --locked -p ringmaster-sim --example soak -- $(SEEDS)

# Not for CI: SCALE_REPLICAS processes at once.
.PHONY: scale-figures
SCALE_REPLICAS ?= 1000
scale-figures: ## Print what a scrape of SCALE_REPLICAS=1000 real replicas takes, and what scraping costs requests
	@RINGMASTER_SCALE_REPLICAS=$(SCALE_REPLICAS) cargo test --release --locked --workspace --all-features --test e2e \
		scale:: -- --ignored --nocapture

# The experiments run against the daemon of `make up`, or bring one up for themselves. Options: make a1 LAB='--runs 20'.
# Exit code 4 says that a promise was missed: the next experiment is run all the same, and the report shows it.
LAB ?=
a1: ## Experiment: how evenly 10,000 requests are distributed (results in lab-out)
a2: ## Experiment: 2 to 6 replicas
a3: ## Experiment: kill -9, SIGSTOP, stop, two at once, all, under load
a4: ## Experiment: every policy and several hash functions
compare: ## Experiment: the same load through haproxy and nginx, where installed
report: ## One page of all experiments: lab-out/report.html
a1 a2 a3 a4 compare report: $(if $(filter docker,$(MODE)),images,build)
	@$(BIN) lab $@ $(LAB) || [ $$? = 4 ]
