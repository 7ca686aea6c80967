# `make run` starts the whole gateway, `make test` tests it. Both need Go and make, and get what else they need.

SHELL := /bin/bash
GO ?= go
export GO
# A workspace around this folder must not choose the modules.
export GOWORK := off
export CGO_ENABLED

.PHONY: help go run settings test grpcurl browser prometheus ci soak test-deploy bench bench-short bench-binary simulate bundle traefik upstream redis lint test-compiled test-interpreted test-e2e test-simulation fuzz clean

help:
	@echo 'make run      the whole gateway on 127.0.0.1:$${PORT:-5000}; with GATEWAYS=2, two gateways that share one Redis'
	@echo 'make test     every test: compiled with -race, interpreted, end to end'
	@echo 'make ci       make test, and what else belongs to a submission'
	@echo 'make soak     what takes long: ten minutes of a fleet under faults, and a report; two minutes under attack, and two of'
	@echo '              gateways with standing leases that are killed; every failover of Sentinel and of a Cluster; 500 reloads;'
	@echo '              a flood of keys; a million look-ups'
	@echo 'make bench    what the plugin costs, compared with the built-in limiter and circuit breaker'
	@echo 'make bundle   dist/plugins-local: the plugin as Traefik loads it'
	@echo 'make traefik  dist/bin/traefik: the pinned version, downloaded or built'
	@echo 'make clean    removes dist'

run: settings bundle traefik upstream
	@exec dist/bin/run

# A wrong setting ends make run before anything else is built.
settings: go
	@mkdir -p dist/bin && cd harness && $(GO) build -o ../dist/bin/run ./run
	@dist/bin/run check

go:
	@.ci/go

bundle: go
	@$(GO) run ./bundle dist

# TRAEFIK=<path> takes that binary. TRAEFIK_RELEASES=<url> is another site with the releases, or none.
traefik: go
	@mkdir -p dist/bin && cd harness && $(GO) build -o ../dist/bin/build ./build
	@dist/bin/build dist/bin/traefik

upstream: go
	@mkdir -p dist/bin && cd upstream && CGO_ENABLED=0 $(GO) build -trimpath -o ../dist/bin/upstream .

# A client of gRPC for the tests.
grpcurl:
	@mkdir -p dist/bin && cd harness/grpcurl && CGO_ENABLED=0 $(GO) build -trimpath -o ../../dist/bin/grpcurl github.com/fullstorydev/grpcurl/cmd/grpcurl

# The tests run against a real Redis server.
redis:
	@command -v redis-server >/dev/null || .ci/install redis-server

test: go
	@.ci/part lint              $(MAKE) --no-print-directory lint
	@.ci/part redis             $(MAKE) --no-print-directory redis
	@.ci/part compiled          $(MAKE) --no-print-directory test-compiled
	@.ci/part interpreted       $(MAKE) --no-print-directory test-interpreted
	@.ci/part traefik           $(MAKE) --no-print-directory traefik
	@.ci/part end-to-end        $(MAKE) --no-print-directory test-e2e
	@.ci/part simulation        $(MAKE) --no-print-directory test-simulation

lint:
	@.ci/lint

test-compiled: redis
	.ci/again . 1 -race -timeout 30m ./...
	cd upstream && $(GO) test -race ./...
	cd deploy/check && CGO_ENABLED=0 $(GO) test ./...
	cd harness && $(GO) test -count=1 ./dialect ./readme ./again ./identitydiff ./wire ./truth ./walkthrough ./build ./run

# The tests of what talks to Redis, with the Redis and Valkey servers of other releases of Debian; with version 6.0 those of the scripts alone,
# as it lacks options that the others use.
.PHONY: test-servers
test-servers: go
	@set -e; for server in $$(.ci/servers); do \
		case $$server in */bullseye-*) store= ;; *) store=./internal/store ;; esac; \
		REDIS_SERVER=$$server $(GO) test -count=1 -timeout 30m $$store ./ratelimit ./breaker; \
	done

# In two processes, because one interpreter uses one core.
test-interpreted: redis
	cd harness && $(GO) build ./interpreted
	@$(MAKE) --no-print-directory -j2 --output-sync=target interpreted-root interpreted-rest

.PHONY: interpreted-root interpreted-rest
interpreted-root:
	.ci/again harness 3 -count=1 -timeout 30m -run 'TestInterpreted/^resilience$$' ./interpreted

interpreted-rest:
	.ci/again harness 3 -count=1 -timeout 30m -skip 'TestInterpreted/^resilience$$' ./interpreted

# The status page is looked at in a real browser, and by axe-core.
AXE := 4.14.1
browser:
	@command -v chromium >/dev/null || .ci/install chromium
	@command -v npm >/dev/null || .ci/install npm
	@[ -e dist/axe/$(AXE) ] || { mkdir -p dist/axe && npm install --prefix dist/axe --no-save --silent --no-audit --no-fund axe-core@$(AXE) && touch dist/axe/$(AXE); }

# The metrics are scraped by a real Prometheus.
prometheus:
	@command -v prometheus >/dev/null || .ci/install prometheus

test-e2e: redis bundle traefik upstream grpcurl browser prometheus
	@command -v curl >/dev/null || .ci/install curl
	@command -v openssl >/dev/null || .ci/install openssl
	@PATH=$$PATH:/usr/sbin command -v nginx >/dev/null || .ci/install nginx
	.ci/again harness 1 -count=1 -timeout 40m -parallel 4 ./e2e
	.ci/again harness 1 -count=1 -timeout 5m -parallel 24 ./migration

test-simulation:
	cd harness && $(GO) test -count=1 ./window ./several ./standing ./simulate ./bench ./gateway

FUZZ_DIVISOR ?= 1
fuzz: redis
	FUZZ_DIVISOR=$(FUZZ_DIVISOR) .ci/fuzz

# What takes long: a fleet under faults of every kind, held against what is promised; malformed and slow clients; failovers; gateways with
# standing leases that are killed and started; reloads; a flood of keys, and of look-ups; random steps of draw and of the breaker.
# SOAK="-length 1h -seed 7 -attack 10m -standing 10m" for other lengths, or to see a failure again.
SOAK ?= -length 10m
RELOADS ?= 500
KEYS ?= 200000
DRAW_STEPS ?= 2000000
BREAKER_STEPS ?= 1000000
LOOKUPS ?= 1000000
soak: soak-fleets
	cd harness && RELOADS=$(RELOADS) KEYS=$(KEYS) LOOKUPS=$(LOOKUPS) $(GO) test -count=1 -timeout 1h -v -run 'TestReload_manyUnderLoad|TestAbuse_aFloodOfKeys|TestAdmin_manyLookups' ./e2e
	DRAW_STEPS=$(DRAW_STEPS) $(GO) test -count=1 -timeout 1h -run TestDraw_agreesWithTheModel ./ratelimit
	BREAKER_STEPS=$(BREAKER_STEPS) $(GO) test -count=1 -timeout 1h -v -run TestScripts_agreeWithTheModel ./breaker

.PHONY: soak-fleets
soak-fleets: redis bundle traefik upstream
	cd harness && $(GO) test -count=1 -timeout 0 -v ./soak $(SOAK)

ci: test test-deploy
	@.ci/part fuzz              $(MAKE) --no-print-directory fuzz FUZZ_DIVISOR=4
	@.ci/part bench             $(MAKE) --no-print-directory bench-short
	@.ci/part soak              $(MAKE) --no-print-directory soak-fleets SOAK='-length 75s -gap 1500ms -faults 6 -attack 30s -phase 12s -standing 15s -skip TestFailover'

# Every way to deploy it, tried for real.
test-deploy:
	@.ci/part workflows         $(MAKE) --no-print-directory test-workflows
	@.ci/part catalogue         $(MAKE) --no-print-directory test-deploy-catalogue
	@.ci/part compose           $(MAKE) --no-print-directory test-deploy-compose
	@.ci/part kubernetes        $(MAKE) --no-print-directory test-deploy-k8s

# The plugin and Traefik's own limiter and circuit breaker, side by side in one run: dist/bench.json, and the plot of the main case in docs.
# It takes most of an hour. To measure one change: make bench BENCH='-case default -only a -rounds 3 -time 2s'
BENCH ?= -json dist/bench.json -svg docs/performance.svg
bench: bench-binary
	@dist/bin/bench -root . $(BENCH)

# Fleets in virtual time, and the plot of what they leave unused.
simulate:
	$(GO) test -count=1 -run TestSimulatedFleets ./breaker -args -time 20m -json $(CURDIR)/dist/breakers.json
	cd harness && $(GO) run ./simulate/breakers $(CURDIR)/dist/breakers.json $(CURDIR)/docs/breaker-simulation.svg
	cd harness && $(GO) test -count=1 ./simulate -args -svg $(CURDIR)/docs/simulation.svg -json $(CURDIR)/dist/simulate.json

# Two workloads of the main case in a few rounds, with loose bounds: it fails when a change loses the fast path.
bench-short: bench-binary
	@dist/bin/bench -root . -short -json dist/bench-short.json

bench-binary: redis bundle traefik upstream
	@command -v wrk >/dev/null || .ci/install wrk
	@cd harness && $(GO) build -o ../dist/bin/bench ./bench

# Kubernetes: the tree in k8s as one file, and its tests on a real API server.
.PHONY: k8s kubectl kubernetes test-deploy-k8s

kubectl:
	@.ci/kubernetes kubectl

kubernetes:
	@command -v etcd >/dev/null || .ci/install etcd-server
	@.ci/kubernetes kubectl kube-apiserver kube-controller-manager

k8s:
	@.ci/manifest

test-deploy-k8s: redis bundle traefik upstream kubernetes k8s
	@command -v curl >/dev/null || .ci/install curl
	@command -v openssl >/dev/null || .ci/install openssl
	.ci/again harness 1 -count=1 -timeout 30m ./deploy/kubernetes

# Compose: the image, both stacks and deploy.sh on a real Docker Engine.
.PHONY: compose test-deploy-compose

compose:
	@.ci/compose

test-deploy-compose: redis traefik compose
	@command -v busybox >/dev/null || .ci/install busybox-static
	@command -v curl >/dev/null || .ci/install curl
	@command -v openssl >/dev/null || .ci/install openssl
	@docker info >/dev/null 2>&1 || command -v dockerd >/dev/null || .ci/install docker.io
	@command -v docker >/dev/null || .ci/install docker-cli
	@command -v mkfs.ext4 >/dev/null || .ci/install e2fsprogs
	.ci/again harness 1 -count=1 -timeout 40m ./deploy/compose

clean:
	rm -rf dist

# GitHub Actions: the workflows linted, and their steps run.
.PHONY: test-workflows

test-workflows: redis kubectl
	@command -v shellcheck >/dev/null || .ci/install shellcheck
	@command -v ssh >/dev/null || .ci/install openssh-client
	cd harness && $(GO) test -count=1 -timeout 10m ./deploy/workflows

# The tag of a release, as the plugin catalogue checks it and the real Traefik loads it.
.PHONY: test-deploy-catalogue

test-deploy-catalogue: redis traefik
	cd harness && $(GO) test -count=1 -timeout 10m ./deploy/catalogue
