# Everything below `install` runs on a private copy of PostgreSQL and never touches the system's.

SHELL      := /bin/bash
USER_NAME  := $(shell id -un)
# The major of PostgreSQL: `make test-server PG=18`. Debian has 15; servers of the others are fetched by scripts/server.sh.
MAJORS     := 14 15 16 17 18
PG         ?= 15
ifeq ($(filter $(PG),$(MAJORS)),)
$(error PG=$(PG): the majors of PostgreSQL are $(MAJORS))
endif
SYSTEM_PG  := /usr/lib/postgresql/$(PG)/bin/pg_config
# Where private copies are; each major has one of its own.
PREFIXES   ?= /tmp/merkle_log-$(USER_NAME)
PREFIX     ?= $(PREFIXES)-pg$(PG)
ifeq ($(PG),15)
PRIVATE_PG := $(PREFIX)/lib/postgresql/15/bin/pg_config
else
PRIVATE_PG := $(PREFIX)/bin/pg_config
endif
PG_CONFIG  ?= $(shell command -v pg_config)
FEATURES   := --no-default-features --features pg$(PG)
export PG

# pgrx keeps what it knows of PostgreSQL here instead of in the user's home.
export PGRX_HOME := $(CURDIR)/target/pgrx/pg$(PG)
export PGRX_PG_CONFIG_PATH := $(PRIVATE_PG)
# build.rs does what this is for, without flags that separate the dependencies of `cargo pgrx` from all others'.
export CARGO_PGRX_DISABLE_GC_SECTIONS_WORKAROUND := 1
# PostgreSQL refuses root: as root, servers run as postgres, from a directory that it can reach.
ifeq ($(shell id -u),0)
export CARGO_PGRX_TEST_RUNAS := postgres
export CARGO_PGRX_TEST_PGDATA ?= $(PREFIXES)-pgdata-pg$(PG)
endif

# In its long form (LONG=1, which the tests read too) testing takes the extension as it is shipped; otherwise
# everything that is tested is built in one profile, dev, so that dependencies are built once.
export LONG
ifdef LONG
TESTED := release
export NEXTEST_PROFILE := long
else
unexport LONG
TESTED := dev
endif
NEXTEST := cargo nextest run --workspace --exclude merkle_log
TEST_SERVER := CONF="fsync = off" scripts/with-postgres.sh $(PRIVATE_PG) env MERKLE_LOG_PG_CONFIG=$(PRIVATE_PG)

.DEFAULT_GOAL := help
.PHONY: help setup check-all-pg test-all-pg test-major postgres private-install install dist demo demo-program demo-stop soak soak-ledger bench bench-capture bench-catbird bench-gateway bench-idle bench-ledger bench-outside bench-verify fuzz-ledger fuzz-tlog hostile-ledger larger-than-memory catbird-generate test test-long lint test-all test-catbird test-catbird-generated test-crates test-doc test-extension test-install test-loom test-miri test-pure test-server test-tools clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: private-install demo-program ## build, start a private cluster, log real rows, prove, tamper, detect
	@examples/demo/demo.sh $(PRIVATE_PG)

demo-program:
	@echo "building merkle-log (the log is target/build.log)"
	@cargo build --release -p merkle_log_cli >>target/build.log 2>&1 || { tail -40 target/build.log; exit 1; }

demo-stop: ## stop the cluster that the demo left running, and delete it
	@examples/demo/stop.sh $(PRIVATE_PG)

test: ## run every check and every test; prints what took longest
	@MAKE="$(MAKE)" scripts/stages.sh lint test-extension test-catbird-generated test-all test-pure

test-all-pg: ## what depends on the major of PostgreSQL, with whole servers of each: docs/versions.md says which tests
	@for major in $(MAJORS); do $(MAKE) --no-print-directory test-major PG=$$major PREFIX=$(PREFIXES)-pg$$major || exit 1; done

# Tests of the whole server suite that meet the server's own formats, signatures and behaviour.
MAJOR_TESTS := test(/^(versions|capture|dump_restore|wal_oracle|settings|partitions|worker)::/)

test-major: test-install
	@scripts/setup.sh server
	@echo "== tests with $$($(PRIVATE_PG) --version)"
	@scripts/headers.sh $(PRIVATE_PG)
	AMCHECK=1 MERKLE_LOG_PG_CONFIG=$(PRIVATE_PG) $(NEXTEST) -E 'package(server-tests) & ($(MAJOR_TESTS))'

test-long: ## the same with each test in its long form, against the extension as it is shipped
	@$(MAKE) test LONG=1

dist: private-install ## pack the extension, merkle-log and the examples for hosts: target/merkle_log-pg15.tar.gz
	cargo build --release -p merkle_log_cli
	scripts/dist.sh $(PRIVATE_PG) $(SYSTEM_PG) target/release/merkle-log target/merkle_log-pg$(PG).tar.gz

install: setup ## install into the server of PG_CONFIG (default: pg_config on the PATH), whichever major it is
	PGRX_PG_CONFIG_PATH=$(PG_CONFIG) cargo pgrx install --release --pg-config $(PG_CONFIG)

setup:
	@scripts/setup.sh

postgres: setup
ifeq ($(PG),15)
	@scripts/private-postgres.sh $(SYSTEM_PG) $(PREFIX)
else
	@scripts/setup.sh server
	@scripts/server.sh $(PG) $(PREFIX) >/dev/null
endif
	@mkdir -p $(PGRX_HOME)
	@grep -qs '$(PRIVATE_PG)' $(PGRX_HOME)/config.toml || cargo pgrx init --pg$(PG) $(PRIVATE_PG) >$(PGRX_HOME)/init.log 2>&1 || { cat $(PGRX_HOME)/init.log; exit 1; }

private-install test-install: postgres
	@echo "building merkle_log (the log is target/build.log)"
	@cargo pgrx install --profile $(BUILT) --pg-config $(PRIVATE_PG) $(FEATURES) >target/build.log 2>&1 || { tail -40 target/build.log; exit 1; }
private-install: BUILT := release
test-install: BUILT := $(TESTED)

# The bindings that pgrx-pg-sys brings along stand in for a server's headers, so no server is needed. All majors share
# one target directory, apart from the builds with a server, so that neither throws away what the other has built.
CHECKED := $(MAJORS)
check-all-pg: setup ## type-check the extension for every major of PostgreSQL; needs no server
	@for major in $(CHECKED); do \
	    echo "checking for PostgreSQL $$major"; \
	    DOCS_RS=1 RUSTC_WRAPPER=$(CURDIR)/scripts/rustc-bundled-bindings.sh cargo check -q -p merkle_log --no-default-features --features pg$$major --target-dir target/majors || exit 1; \
	done

# Only the extension differs between majors.
ifeq ($(PG),15)
LINTED := --workspace
else
LINTED := -p merkle_log $(FEATURES)
endif
lint: postgres
	@scripts/setup.sh lint
	cargo fmt --all --check
	cargo clippy $(LINTED) --all-targets -- -D warnings
	@$(MAKE) --no-print-directory check-all-pg CHECKED="$(filter-out $(PG),$(MAJORS))"
	scripts/headers.sh $(PRIVATE_PG)
	scripts/pgspot.sh
	scripts/deny.sh

test-tools: setup
	@scripts/setup.sh test

test-all: test-tools test-install ## the tests of all crates at once: those without Postgres, the messaging layer, real servers
	$(TEST_SERVER) $(NEXTEST)

test-server: test-tools test-install
	MERKLE_LOG_PG_CONFIG=$(PRIVATE_PG) $(NEXTEST) -E 'package(server-tests)'

test-catbird: test-tools test-catbird-generated
	$(TEST_SERVER) $(NEXTEST) -E 'package(catbird_db) + package(catbird_proof) + package(catbird_server)'

test-catbird-generated: test-install
	scripts/with-postgres.sh $(PRIVATE_PG) scripts/catbird-generate.sh --check

test-crates: test-tools test-pure
	$(NEXTEST) -E 'package(merkle-tree) + package(leaf-format) + package(tlog) + package(merkle_log_cli) + package(merkle_log_client) + package(geometric_ledger) + package(geometric_ledger_cli)'

test-pure: test-tools test-loom test-doc
	scripts/instructions.sh
	python3 docs/leaf-format-check.py
	examples/verify/check.sh
	scripts/alerts.sh

test-doc: ## the examples in the documentation of the crates
	cargo test --doc --workspace --exclude merkle_log

test-loom: ## every order in which a reader and a writer of the ledger can meet
	RUSTFLAGS="--cfg loom" cargo test -p geometric_ledger --test loom --target-dir target/loom

test-miri: ## data races and weak memory in the ledger's lock-free reading; needs a nightly toolchain with Miri
	cargo +nightly miri test -p geometric_ledger --lib seqlock

fuzz-ledger: ## any bytes in any file of a ledger, for SECONDS (default 60) a target; needs nightly and cargo-fuzz
	cd crates/geometric_ledger && for target in files snapshot; do cargo +nightly fuzz run $$target -- -max_total_time=$(or $(SECONDS),60) || exit 1; done

fuzz-tlog: ## any bytes as a note, a policy, a tile, a proof or a request to a witness, for SECONDS (default 60) a target; needs nightly and cargo-fuzz
	cd crates/tlog && for target in fuzz/fuzz_targets/*.rs; do cargo +nightly fuzz run $$(basename $$target .rs) -- -max_total_time=$(or $(SECONDS),60) || exit 1; done

hostile-ledger: ## the ledger killed, and each of its files damaged, for SECONDS (default 600): nothing acknowledged changes
	HOSTILE_SECONDS=$(or $(SECONDS),600) cargo test --release -p geometric_ledger --test hostile -- --nocapture

soak-ledger: ## the ledger under full load for MINUTES (default 10), killed now and then: memory flat, nothing lost
	MINUTES=$(or $(MINUTES),10) cargo test --release -p geometric_ledger --test soak -- --nocapture

larger-than-memory: ## a ledger of ACCOUNTS (default 100,000,000) in MEGABYTES (2,048) of memory, killed and opened; as root
	cargo bench -p geometric_ledger --bench larger_than_memory

test-extension: postgres
	@rm -rf "$(CARGO_PGRX_TEST_PGDATA)"
	cargo pgrx test pg$(PG) $(FEATURES)

catbird-generate: private-install ## what follows from the migrations of catbird_db: checked queries, schema reference
	scripts/with-postgres.sh $(PRIVATE_PG) scripts/catbird-generate.sh

soak: private-install ## full writer load for MINUTES (default 60): lag bounded, memory flat, all verified
	MERKLE_LOG_PG_CONFIG=$(PRIVATE_PG) MINUTES=$(or $(MINUTES),60) cargo test -p server-tests soak:: -- --nocapture

bench: private-install ## merkle_log against what the server does without it, as one table of ratios
	@CONF="$$(cat benches/bench.conf)" scripts/with-postgres.sh $(PRIVATE_PG) benches/bench.sh

bench-ledger: ## the account store against other embedded stores, as tables; RocksDB if librocksdb-dev is there
	cargo bench -p geometric_ledger --bench ledger
	cargo bench -p geometric_ledger --bench peers

bench-catbird: private-install ## catbird_db against pgbench with the same statements, as one table
	@scripts/with-postgres.sh $(PRIVATE_PG) cargo bench -q -p catbird_db --bench catbird

bench-gateway: private-install ## the gateway on loopback: proofs from the database, tiles from files; needs wrk
	cargo build --release -p merkle_log_cli
	@scripts/with-postgres.sh $(PRIVATE_PG) benches/gateway.sh target/release/merkle-log

bench-outside: private-install ## export, verify and bundles, and what it costs that hashes can be found, as one table
	cargo build -q --release -p merkle_log_cli
	@CONF="$$(cat benches/bench.conf)" scripts/with-postgres.sh $(PRIVATE_PG) benches/outside.sh $(CURDIR)/target/release/merkle-log

bench-capture: private-install ## what trigger capture costs its writers, as ratios
	@CONF="merkle_log.databases = '*'" scripts/with-postgres.sh $(PRIVATE_PG) benches/capture.sh

bench-verify: private-install ## what continuous verification costs pgbench, at the default rate and at ten times as much
	@CONF="merkle_log.databases = '*'" scripts/with-postgres.sh $(PRIVATE_PG) benches/verify.sh

bench-idle: private-install ## what a worker costs whose 500 logs are idle
	@CONF="merkle_log.databases = '*'" scripts/with-postgres.sh $(PRIVATE_PG) benches/idle.sh

clean: ## delete what was built, and the private copies of PostgreSQL
	cargo clean
	rm -rf $(PREFIX) $(MAJORS:%=$(PREFIXES)-pg%) $(MAJORS:%=$(PREFIXES)-pgdata-pg%)
