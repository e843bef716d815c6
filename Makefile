# Order Fellow. `make help` lists what there is.
.DEFAULT_GOAL := help
.PHONY: bench contracts help demo run test test-faults test-compose test-matrix test-ports test-unit fuzz audit sbom lint format lock clean setup

# What a shell says to every Python is not for these: other libraries, no modules of this folder,
# no asserts, a prompt at the end. PYTHON alone is ours.
unexport $(filter-out PYTHON,$(filter PYTHON%,$(.VARIABLES)))
# They would choose among the tests, and how long one may take.
unexport $(filter PYTEST%,$(.VARIABLES))

PYTHON ?= python3
BIN := .venv/bin
# A process a core and one more, since many tests wait, each with servers of its own; a file of
# tests stays with one.
PARALLEL := --numprocesses $(shell n=$$(nproc); echo $$((n < 4 ? n + 1 : 4))) --dist loadfile

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r name text; do printf '  make %-12s %s\n' "$$name" "$$text"; done

demo: setup ## play the whole story for real, on throwaway servers, then stop
	@exec $(BIN)/python -m stack.demo

run: setup ## start everything and stay (PORT=8000); Ctrl-C stops it, the data stays
	@exec $(BIN)/python -m stack.run

test: setup ## run every test, on real servers
	@$(BIN)/python -m stack.servers
	@$(BIN)/python -m tests.programs
	@$(BIN)/python -m pytest $(PARALLEL) --no-loadscope-reorder

test-faults: setup ## break everything on purpose, under load (FAULTS_MINUTES=60 soaks, FAULTS_SEED=n repeats)
	@$(BIN)/python -m stack.servers
	@$(BIN)/python -m tests.programs faketime
	@$(BIN)/python -m pytest tests/faults $(PARALLEL)

test-matrix: setup ## demo and tests on bare machines in containers (MATRIX=debian-13,ubuntu-24.04; needs a Docker engine)
	@$(BIN)/python -m tests.machines.matrix $(MATRIX) $(addprefix --only ,$(MATRIX_ONLY)) $(addprefix --table ,$(MATRIX_TABLE))

test-ports: setup ## start eight pairs of servers at once, ten times, beside somebody who takes their ports
	@$(BIN)/python -m stack.servers
	@PORTS_AT_ONCE=8 PORTS_TIMES=10 exec $(BIN)/python -m pytest tests/integration/stack/test_ports.py -k at_once_beside -s

test-compose: setup ## the production steps as printed, on a Docker engine: kills, upgrades (COMPOSE_FROM=commit), passwords (about 10 min)
	@$(BIN)/python -m tests.machines.compose $(addprefix --from ,$(COMPOSE_FROM))

fuzz: setup ## coverage-guided fuzzing of what reads strangers' bytes (FUZZ_SECONDS=60; Python 3.11 to 3.13)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps atheris==3.0.0
	@$(BIN)/python -m tests.fuzz.hot_path -max_total_time=$(or $(FUZZ_SECONDS),60) -max_len=4096

bench: setup ## measure everything, side by side with what people would pick instead (under 10 min)
	@$(BIN)/python -m stack.servers
	@$(BIN)/python -m bench

bench-%: setup
	@$(BIN)/python -m stack.servers
	@$(BIN)/python -m bench $*

audit: setup ## look the lock file up in a database of known weaknesses (needs the network)
	@$(BIN)/python -m venv .stack/audit
	@.stack/audit/bin/pip install --quiet --disable-pip-version-check pip-audit
	@.stack/audit/bin/pip-audit --disable-pip --require-hashes --requirement requirements.lock

sbom: setup ## write .stack/sbom.cdx.json: what the product is made of (CycloneDX 1.6), from the lock file
	@$(BIN)/python -m venv .stack/sbom
	@.stack/sbom/bin/pip install --quiet --disable-pip-version-check cyclonedx-bom==7.5.0
	@.stack/sbom/bin/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible --validate -o .stack/sbom.cdx.json requirements.lock
	@$(BIN)/python -m stack.generated.sbom requirements.lock .stack/sbom.cdx.json

test-unit: setup ## run the tests that need no server
	@$(BIN)/python -m pytest tests/unit

lint: setup ## ruff, mypy, import-linter
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy shared services stack
	@$(BIN)/lint-imports

format: setup ## put the code into ruff's format
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

contracts: setup ## write docs/contracts and docs/configuration.md anew, as the code has them
	@$(BIN)/python -m stack.generated.contracts

lock: setup ## write the lock files anew from pyproject.toml
	@$(BIN)/python stack/generated/lock.py

clean: ## remove the venv and all data; stops what a killed run has left
	@python=$(BIN)/python; [ -x $$python ] || python="$(PYTHON)"; $$python -m stack.clean || [ $$? -ne 3 ]
	@rm -rf .venv .venv.lock .stack *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache examples/node_modules
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

setup:
	@$(PYTHON) stack/bootstrap.py
