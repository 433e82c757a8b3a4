# `make` lists the targets. Each target installs what it needs (Debian packages only as root).
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: ansible help setup demo test test-hosts tutorial test-old-rsync test-faults fuzz check reference check-pythons coverage lint types fmt imports bench constraints packages clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

# The build uses the setuptools of constraints.txt, so that every download has a hash.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -m venv $(VENV) || { echo "make: python3 -m venv failed. On Debian: apt install python3-venv" >&2; exit 1; }
	@echo 'installing into $(VENV)'
	@$(BIN)/python -m pip install --quiet --require-hashes --requirement constraints.txt
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

setup: $(STAMP) ## create .venv with all programs and tools
	@:

# The demo has an environment of its own, without the tools and tests.
DEMO_VENV := .cache/venv-demo
$(DEMO_VENV)/.installed: pyproject.toml constraints-demo.txt
	@$(PYTHON) -m venv $(DEMO_VENV)
	@echo 'installing into $(DEMO_VENV)'
	@$(DEMO_VENV)/bin/python -m pip install --quiet --no-compile --require-hashes --requirement constraints-demo.txt
	@$(DEMO_VENV)/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: ## back up and restore a directory on this computer
	@packaging/require-debian-packages.sh demo
	@$(MAKE) --no-print-directory $(DEMO_VENV)/.installed
	@$(DEMO_VENV)/bin/turku demo $(DEMO_ARGUMENTS)

test: ## run every test (real sshd, rsync, PostgreSQL on loopback)
	@packaging/require-debian-packages.sh test
	@$(MAKE) --no-print-directory setup
	$(BIN)/python -m pytest -n 4 --dist loadgroup $(TEST_ARGUMENTS)

# Ansible is large, so it has an environment of its own.
ANSIBLE_STAMP := .cache/ansible/.installed
$(ANSIBLE_STAMP): packaging/ansible/requirements.txt
	@$(PYTHON) -m venv .cache/ansible
	@.cache/ansible/bin/python -m pip install --quiet --require-hashes --requirement $<
	@touch $@

HOST_TESTS ?= tests/hosts
test-hosts: packages $(ANSIBLE_STAMP) ## run the tests on hosts with systemd (Debian 12 and 13), as root
	@packaging/host-roots.sh .cache/hosts
	@packaging/previous-packages.sh $(BIN)/python .cache/previous
	$(BIN)/python -m pytest --hosts -n 2 --dist loadgroup --timeout 900 $(HOST_TESTS) $(TEST_ARGUMENTS)

tutorial: packages ## follow the tutorial on hosts, and write into the page what its commands print
	@packaging/host-roots.sh .cache/hosts
	$(BIN)/python -m pytest --hosts -n0 --timeout 900 tests/hosts/test_tutorial.py --write-tutorial

test-old-rsync: ## run the tests that move data with the old rsync 3.2.7
	@packaging/require-debian-packages.sh test
	@$(MAKE) --no-print-directory setup
	@packaging/test-old-rsync.sh $(BIN)/python .cache $(TEST_ARGUMENTS)

# Another seed every day. A fault prints the arguments that repeat it.
FAULTS_SEED ?= $(shell date +%Y%m%d)
FAULTS ?= 120
test-faults: ## inject faults (kills, lost power, bad disks): 4 min, as root
	@packaging/require-debian-packages.sh test
	@$(MAKE) --no-print-directory setup
	$(BIN)/python -m bench.faults --faults $(FAULTS) --seed $(FAULTS_SEED)

# Another seed every day. A fault prints the arguments that repeat it.
FUZZ_SEED ?= $(shell date +%Y%m%d)
fuzz: ## run the fuzzers: malformed and hostile data, 6 min
	@packaging/require-debian-packages.sh test
	@$(MAKE) --no-print-directory setup
	$(BIN)/python -m bench.fuzz_receiver --sessions 800 --seconds 150 --seed $(FUZZ_SEED)
	$(BIN)/python -m bench.fuzz_restore --sessions 400 --seed $(FUZZ_SEED)
	$(BIN)/python -m bench.fuzz_session --requests 2000 --real 40 --seed $(FUZZ_SEED)
	$(BIN)/python -m bench.fuzz_calls --requests 5000 --seed $(FUZZ_SEED)

# BENCH_ARGUMENTS=--quick takes 10 minutes.
bench: ## run all benchmarks: an hour, 50 GB of disk
	@packaging/require-debian-packages.sh bench
	@$(MAKE) --no-print-directory setup
	$(BIN)/python -m bench.everything $(BENCH_ARGUMENTS)

check: lint types imports ## ruff, mypy and import contracts: 20 s

# The oldest and the newest Python that are supported. What .venv has is checked and tested by the other targets.
PYTHONS ?= 3.11 3.13
check-pythons: setup ## mypy and unit tests on Python 3.11 and 3.13
	@own=$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	for version in $(PYTHONS); do \
	  if [ $$version = $$own ]; then echo "== Python $$version: that of $(VENV), see 'make check' and 'make test'"; continue; fi; \
	  python=$$(packaging/find-python.sh $$version); \
	  echo "== Python $$version: $$python"; \
	  $(MAKE) --no-print-directory types PYTHON=$$python VENV=.cache/venv-$$version; \
	  .cache/venv-$$version/bin/python -m pytest -q -n 2 $(COVERED_TESTS); \
	done

reference: setup ## write the generated parts of docs/reference and examples
	$(BIN)/python docs/reference/generate.py

ansible: $(ANSIBLE_STAMP) ## install Ansible, and lint the roles and the cloud-init example
	@.cache/ansible/bin/yamllint --strict --config-file packaging/ansible/.yamllint packaging/ansible packaging/cloud-init
	@cd packaging/ansible && PATH=$(CURDIR)/.cache/ansible/bin:$$PATH ansible-lint -q

lint: setup ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup ## mypy, strict, of the code, tests and benchmarks
	$(BIN)/mypy

imports: setup ## import contracts: which package may import which
	$(BIN)/lint-imports

# Their own tests, and the unit tests of their callers.
COVERED := core policy protocol
COVERED_TESTS := $(wildcard $(foreach package,$(COVERED),tests/unit/$(package) tests/property/$(package) \
                 tests/integration/$(package)) tests/unit/agent tests/unit/storage)
coverage: setup ## branch coverage of core, policy and protocol
	@rm -rf .cache/coverage && mkdir -p .cache/coverage
	$(BIN)/coverage run -m pytest -q -n 3 --dist loadgroup $(COVERED_TESTS)
	@$(BIN)/coverage combine --quiet
	@for package in $(COVERED); do $(BIN)/coverage report --include="src/turku/$$package/*"; done

fmt: setup ## format, and fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# CONSTRAINTS_ARGUMENTS=--upgrade takes new releases. constraints-demo.txt has those that the demo needs, in the same versions.
PIN := .cache/uv/bin/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-annotate \
  --no-emit-package colorama --no-emit-index-url --custom-compile-command 'make constraints' --quiet
constraints: ## pin every package with its hashes in constraints.txt
	@test -x .cache/uv/bin/uv || { $(PYTHON) -m venv .cache/uv && .cache/uv/bin/pip install --quiet uv; }
	@$(PIN) --extra test --output-file constraints.txt $(CONSTRAINTS_ARGUMENTS)
	@$(PIN) --extra demo --extra build --constraint constraints.txt --output-file constraints-demo.txt
	@.cache/uv/bin/uv pip compile packaging/ansible/requirements.in --universal --python-version 3.11 --generate-hashes \
	  --no-annotate --no-emit-index-url --custom-compile-command 'make constraints' --quiet \
	  --output-file packaging/ansible/requirements.txt $(CONSTRAINTS_ARGUMENTS)
	@sed -n 's/^psycopg==\([^ ]*\).*/psycopg-c==\1/p' constraints.txt | .cache/uv/bin/uv pip compile --no-deps --generate-hashes \
	  --no-emit-index-url --custom-compile-command 'make constraints' --quiet --output-file packaging/builder/compiled.txt -

# RELEASES=trixie builds for one release.
RELEASES ?= bookworm trixie
packages: ## build .deb packages of Debian 12 and 13 into dist/, as root
	@packaging/require-debian-packages.sh packages
	@$(MAKE) --no-print-directory setup
	@packaging/packages.sh $(BIN)/python $(RELEASES)

clean: ## remove what the other targets created
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .cache
