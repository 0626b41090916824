# Every target makes .venv when it is missing or older than pyproject.toml.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

.PHONY: help setup demo reports test test-slow test-matrix lint format docs clean

help:  ## Say what there is
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY)  ## Make .venv with everything to use and develop the toolkit

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@

demo: $(READY)  ## Train on handwritten digits, run every study, and put what was found on one page
	$(BIN)/irevnet train
	$(BIN)/irevnet-analyze all

reports: $(READY)  ## Build the report pages in docs/results from the results there; computes no study again
	cd docs/results && for data in cifar10 cifar100; do $(abspath $(BIN))/irevnet-analyze report \
	  $$data-irevnet $$data-resnet --out $$data.html || exit; done

# A process with one thread for each core: several that compute with as many threads as there are cores slow each other.
# One that dies ends the run, which then says in which test.
ON_ALL_CORES := --numprocesses auto --maxprocesses 8 --dist worksteal --max-worker-restart 0

# Coverage is judged once all tests have passed: what a process that died had covered is lost. So is whether a test has
# reached every error.
test: $(READY)  ## Run the tests (or TESTS="files and options") on all cores, with coverage
	OMP_NUM_THREADS=1 $(BIN)/pytest $(ON_ALL_CORES) --cov --cov-report= $(TESTS)
	$(BIN)/coverage report --fail-under=95
	$(BIN)/python tests/raises.py

test-slow: $(READY)  ## Run the tests that take minutes, without type checks, which torch.compile cannot trace
	JAXTYPING_DISABLE=1 $(BIN)/pytest -m slow --override-ini faulthandler_timeout=3600

# tests/matrix.py says which tests are the numerical ones. RUNS="wheel", "whole", "numerical" or "table", which computes
# nothing, and --commit, --only or --tests after it (--help says more); what has passed is not repeated.
test-matrix: $(READY)  ## Use the wheel and run the tests with old and new versions, instruction sets and threads
	$(BIN)/pip install --quiet uv
	$(BIN)/python tests/matrix.py $(RUNS)

lint: $(READY)  ## Check format, style, types and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

format: $(READY)  ## Format the code and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The packages import their names when they are first used, and list no modules: pdoc has to be shown both.
define BUILD_API
import importlib, pkgutil, sys, pdoc.__main__
for package in map(importlib.import_module, ("irevnet", "analysis", "figures")):
    vars(package).update({name: getattr(package, name) for name in package.__all__})
    package.__all__ += [module.name for module in pkgutil.iter_modules(package.__path__)]
pdoc.__main__.cli(sys.argv[1:])
endef
export BUILD_API

API := docs/api

docs: $(READY)  ## Write the API reference, from the docstrings, to docs/api/
	$(BIN)/python -c "$$BUILD_API" irevnet analysis figures --docformat google --no-show-source --output-directory $(API)

clean:  ## Remove .venv and caches, but no runs
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage build dist *.egg-info
