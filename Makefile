# Order Fellow. `make help` lists the targets.
.DEFAULT_GOAL := help
.PHONY: bench contracts help demo run test test-faults test-compose test-matrix test-ports test-unit fuzz audit sbom lint format lock clean setup

# Drop the shell's PYTHON* variables (other libraries, no asserts, a prompt at the end). PYTHON alone is
# a setting of this file.
unexport $(filter-out PYTHON,$(filter PYTHON%,$(.VARIABLES)))
# Our files are UTF-8, whatever the locale.
export PYTHONUTF8 := 1
# Drop the shell's PIP_* variables except the sources of packages: a pip that installs elsewhere leaves
# the venv empty.
SOURCES := INDEX_URL EXTRA_INDEX_URL FIND_LINKS NO_INDEX PROXY CERT CLIENT_CERT TRUSTED_HOST \
  CACHE_DIR NO_CACHE_DIR TIMEOUT DEFAULT_TIMEOUT RETRIES CONFIG_FILE
unexport $(filter-out $(addprefix PIP_,$(SOURCES)),$(filter PIP_%,$(.VARIABLES)))
# They would select tests and change time limits.
unexport $(filter PYTEST%,$(.VARIABLES))

# Variables of other programs that our libraries read too: where metrics are written, what
# gunicorn listens on.
unexport PROMETHEUS_MULTIPROC_DIR prometheus_multiproc_dir GUNICORN_CMD_ARGS

PYTHON ?= python3
BIN := .venv/bin
# One process per core and one more, since many tests wait, each with its own servers; the tests of a
# file stay in one process.
PARALLEL = --numprocesses $(shell n=$$(nproc); echo $$((n < 4 ? n + 1 : 4))) --dist loadfile

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r name text; do printf '  make %-12s %s\n' "$$name" "$$text"; done

demo: setup ## run the whole story on throwaway servers, then stop
	@exec "$(BIN)/python" -m stack.demo

run: setup ## start everything and keep it running (PORT=8000); Ctrl-C stops it and keeps the data
	@exec "$(BIN)/python" -m stack.run

test: setup ## run every test, on real servers
	@"$(BIN)/python" -m stack.servers
	@"$(BIN)/python" -m tests.programs
	@"$(BIN)/python" -m pytest $(PARALLEL) --no-loadscope-reorder

test-faults: setup ## kill and break components under load (FAULTS_MINUTES=60 soaks, FAULTS_SEED=n repeats)
	@"$(BIN)/python" -m stack.servers --private
	@"$(BIN)/python" -m tests.programs faketime
	@"$(BIN)/python" -m pytest tests/faults $(PARALLEL)

test-matrix: setup ## demo and tests on bare machines in containers (MATRIX=debian-13,ubuntu-24.04; needs a Docker engine)
	@"$(BIN)/python" -m tests.machines.matrix $(MATRIX) $(addprefix --only ,$(MATRIX_ONLY)) $(addprefix --table ,$(MATRIX_TABLE))

test-ports: setup ## start eight pairs of servers at the same time, ten times, beside a program that takes their ports
	@"$(BIN)/python" -m stack.servers
	@PORTS_AT_ONCE=8 PORTS_TIMES=10 exec "$(BIN)/python" -m pytest tests/integration/stack/test_ports.py -k at_once_beside -s

test-compose: setup ## the production steps as printed, on a Docker engine: kills, upgrades (COMPOSE_FROM=commit), passwords (about 10 min)
	@"$(BIN)/python" -m tests.machines.compose $(addprefix --from ,$(COMPOSE_FROM))

fuzz: setup ## coverage-guided fuzzing of the parsers of untrusted input (FUZZ_SECONDS=60; Python 3.11 to 3.13)
	@"$(BIN)/python" -m pip install --quiet --disable-pip-version-check --no-deps atheris==3.0.0
	@"$(BIN)/python" -m tests.fuzz.hot_path -max_total_time=$(or $(FUZZ_SECONDS),60) -max_len=4096

bench: setup ## measure everything, side by side with common alternatives (under 10 min)
	@"$(BIN)/python" -m stack.servers
	@"$(BIN)/python" -m bench

bench-%: setup
	@"$(BIN)/python" -m stack.servers
	@"$(BIN)/python" -m bench $*

audit: setup ## check the lock file against a vulnerability database (needs the network)
	@"$(BIN)/python" -m venv .stack/audit
	@.stack/audit/bin/pip install --quiet --disable-pip-version-check pip-audit
	@.stack/audit/bin/pip-audit --disable-pip --require-hashes --requirement requirements.lock

sbom: setup ## write .stack/sbom.cdx.json, the software bill of materials (CycloneDX 1.6), from the lock file
	@"$(BIN)/python" -m venv .stack/sbom
	@.stack/sbom/bin/pip install --quiet --disable-pip-version-check cyclonedx-bom==7.5.0
	@.stack/sbom/bin/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible --validate -o .stack/sbom.cdx.json requirements.lock
	@"$(BIN)/python" -m stack.generated.sbom requirements.lock .stack/sbom.cdx.json

test-unit: setup ## run the tests that need no server
	@"$(BIN)/python" -m pytest tests/unit

lint: setup ## ruff, mypy, import-linter
	@"$(BIN)/ruff" check .
	@"$(BIN)/ruff" format --check .
	@"$(BIN)/mypy" shared services stack
	@"$(BIN)/lint-imports"

format: setup ## format the code with ruff
	@"$(BIN)/ruff" check --fix-only .
	@"$(BIN)/ruff" format .

contracts: setup ## regenerate docs/contracts and docs/configuration.md from the code
	@"$(BIN)/python" -m stack.generated.contracts

lock: setup ## regenerate the lock files from pyproject.toml
	@"$(BIN)/python" stack/generated/lock.py

clean: ## remove the venv and all data; stop the leftovers of a killed run
	@if [ -x "$(BIN)/python" ]; then "$(BIN)/python" -m stack.clean; else $(PYTHON) -m stack.clean; fi || [ $$? -ne 3 ]
	@rm -rf .venv .venv.lock .stack *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache examples/node_modules
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

setup:
	@$(PYTHON) stack/bootstrap.py
