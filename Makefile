# What a newcomer types. Nothing here needs more than make, a POSIX shell and Python 3.11 or newer.

PYTHON ?= python3
UV ?= uv

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEV_LOCK := deploy/requirements-dev.lock
RUN_LOCK := deploy/requirements.lock
WHEEL_LOCK := deploy/requirements-wheel.lock
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input --quiet

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow chaos lint validate observe drill format bench bench-quick lock lowest clean

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## make .venv with the locked tools and this project in it (PYTHON=python3.12 for another Python)
	@echo "$(VENV) is ready"

# Made again when a lock or the project's own declaration has changed; a .venv that does not run is replaced.
$(READY): $(DEV_LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "make setup: $(PYTHON) is not Python 3.11 or newer (`$(PYTHON) --version 2>&1 | head -n 1`);" \
	    "name one that is: make setup PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "make setup: $(PYTHON) cannot make virtual environments;" \
	    "install its venv module (Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	@$(BIN)/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "setup: making $(VENV) with `$(PYTHON) --version`"; $(PYTHON) -m venv --clear $(VENV); }
	@echo "setup: installing the locked packages into $(VENV)"
	@$(PIP) install --require-hashes --requirement $(DEV_LOCK) || { \
	  echo "make setup: pip could not install the packages of $(DEV_LOCK); it says why above" >&2; exit 1; }
	@$(PIP) install --no-deps --no-build-isolation --editable . || { \
	  echo "make setup: pip could not install this project; it says why above" >&2; exit 1; }
	@touch $(READY)

demo: $(READY) ## a month of a small cloud provider: who is suspended, restored, deleted, and why
	@$(BIN)/arrears demo

# A machine that others make stand still for seconds breaks what waits for a broker: what failed there is tried once
# more, one test after the other. Whatever fails twice is a fault.
AGAIN := $(BIN)/pytest --last-failed --last-failed-no-failures none

test: $(READY) ## all tests but the slow ones; those on Kafka start a broker of their own
	$(BIN)/pytest -n 2 -m "not slow and not live and not chaos"
	$(BIN)/pytest -n 2 -m "live and not slow" || $(AGAIN) -m "live and not slow"
	$(BIN)/pytest -m "chaos and not slow" || $(AGAIN) -m "chaos and not slow"

test-slow: $(READY) ## the tests that take minutes: fuzzing, thousands of histories
	$(BIN)/pytest -n 2 -m slow

chaos: $(READY) ## break everything for an hour (or 300 faults) and see that nothing is lost: CHAOS="--seed 7 --minutes 10"
	$(BIN)/python -m tests.chaos --minutes 60 --faults 300 $(CHAOS)

lint: $(READY) ## style, format, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

validate: $(READY) ## give every file of deploy/ to the tools that know its kind (promtool, hadolint, node …)
	$(BIN)/python -m deploy.validate

observe: $(READY) ## broker, workers, Prometheus: each dashboard query with its live value (needs Debian's prometheus)
	@$(BIN)/python -m tests.operate.observe

drill: $(READY) ## kill a worker, stop the payments, stop the broker, delete in masses: which alert fires, and when
	@$(BIN)/python -m tests.operate.drill

format: $(READY) ## put the code into the one format, and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY) ## how fast it is: the domain, beside Kafka Streams and Quix, live: BENCH="--only latency --size latency_s=30"
	@$(BIN)/python -m tests.bench $(BENCH)

bench-quick: $(READY) ## has a step become slower? Without Kafka, beside what was kept: BENCH=--keep keeps this
	@$(BIN)/python -m tests.bench --quick $(BENCH)

# No index and no machine is named in a lock: whoever installs from it uses his own.
COMPILE = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

lock: ## resolve the dependencies anew into deploy/*.lock (needs uv)
	@command -v $(UV) >/dev/null || { \
	  echo "make lock: uv is not there; install it, or say where it is: make lock UV=/path/to/uv" >&2; exit 1; }
	$(COMPILE) --upgrade --output-file $(RUN_LOCK) pyproject.toml
	$(COMPILE) --upgrade --extra local-kafka --group dev --constraints $(RUN_LOCK) --output-file $(DEV_LOCK) pyproject.toml
	$(COMPILE) --upgrade --group wheel --constraints $(DEV_LOCK) --output-file $(WHEEL_LOCK)

# In an environment of its own, with the oldest release of each dependency that pyproject.toml allows.
LOWEST := build/lowest
lowest: $(READY) ## run the tests with the lower bounds of the dependencies (needs uv)
	@command -v $(UV) >/dev/null || { \
	  echo "make lowest: uv is not there; install it, or say where it is: make lowest UV=/path/to/uv" >&2; exit 1; }
	$(UV) venv --quiet --clear --python $(BIN)/python $(LOWEST)
	$(UV) pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct --editable ".[local-kafka]"
	$(UV) pip install --quiet --python $(LOWEST)/bin/python --group test
	$(LOWEST)/bin/python -m pytest -n 2 -m "not slow and not live and not chaos"

clean: ## remove what setup and the tools have made
	rm -rf $(VENV) build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
