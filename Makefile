# `make` alone lists the targets. Everything a target needs it installs itself (Debian packages only as root).
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help setup demo test test-old-rsync test-faults fuzz check lint types fmt imports bench clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -m venv $(VENV) || { echo "make: python3 -m venv failed; on Debian: apt install python3-venv" >&2; exit 1; }
	@echo 'installing into $(VENV)'
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	@touch $@

setup: $(STAMP) ## make .venv in the checkout, with all the programs in .venv/bin
	@:

demo: ## back up and restore a real directory on this machine, nothing outside a private directory touched
	@packaging/require-debian-packages.sh demo
	@$(MAKE) --no-print-directory setup
	@$(BIN)/turku demo $(DEMO_ARGUMENTS)

test: ## run every test (real sshd, rsync, PostgreSQL on loopback)
	@packaging/require-debian-packages.sh test
	@$(MAKE) --no-print-directory setup
	$(BIN)/python -m pytest -n 3 --dist loadgroup $(TEST_ARGUMENTS)

test-old-rsync: ## run what moves data with rsync 3.2.7 (Debian 12's first one) on storages, on machines, on both
	@packaging/require-debian-packages.sh test
	@$(MAKE) --no-print-directory setup
	@packaging/test-old-rsync.sh $(BIN)/python .cache $(TEST_ARGUMENTS)

# Another seed every day; a finding prints the arguments that repeat it.
FAULTS_SEED ?= $(shell date +%Y%m%d)
FAULTS ?= 120
test-faults: ## kills, power losses, full, lost and damaged disks, failing calls, wrong clocks: about 4 minutes, as root
	@packaging/require-debian-packages.sh test
	@$(MAKE) --no-print-directory setup
	$(BIN)/python -m bench.faults --faults $(FAULTS) --seed $(FAULTS_SEED)

# Another seed every day; a fault prints the arguments that repeat it.
FUZZ_SEED ?= $(shell date +%Y%m%d)
fuzz: ## malformed requests, damaged protocol data, hostile conversations: about 6 minutes
	@packaging/require-debian-packages.sh test
	@$(MAKE) --no-print-directory setup
	$(BIN)/python -m bench.fuzz_receiver --sessions 800 --seconds 150 --seed $(FUZZ_SEED)
	$(BIN)/python -m bench.fuzz_restore --sessions 400 --seed $(FUZZ_SEED)
	$(BIN)/python -m bench.fuzz_session --requests 2000 --real 40 --seed $(FUZZ_SEED)
	$(BIN)/python -m bench.fuzz_calls --requests 5000 --seed $(FUZZ_SEED)

bench: ## measure all, peers beside us: about an hour and 50 GB of disk; BENCH_ARGUMENTS=--quick takes 10 minutes
	@packaging/require-debian-packages.sh bench
	@$(MAKE) --no-print-directory setup
	$(BIN)/python -m bench.everything $(BENCH_ARGUMENTS)

check: lint types imports ## everything that reads the code without running it

lint: setup ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup ## mypy, strict
	$(BIN)/mypy

imports: setup ## who may import whom
	$(BIN)/lint-imports

fmt: setup ## format and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove what the other targets made
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .cache
