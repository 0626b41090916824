# Every target makes .venv when it is missing or older than pyproject.toml.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

.PHONY: help setup demo test test-slow test-matrix lint format docs clean

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

# A process with one thread for each core: several that compute with as many threads as there are cores slow each other.
# One that dies ends the run, which then says in which test.
ON_ALL_CORES := --numprocesses auto --maxprocesses 8 --dist worksteal --max-worker-restart 0

# Coverage is judged once all tests have passed: what a process that died had covered is lost.
test: $(READY)  ## Run the tests (or TESTS="files and options") on all cores, with coverage
	OMP_NUM_THREADS=1 $(BIN)/pytest $(ON_ALL_CORES) --cov --cov-report= $(TESTS)
	$(BIN)/coverage report --fail-under=95

test-slow: $(READY)  ## Run the tests that take minutes, without type checks, which torch.compile cannot trace
	JAXTYPING_DISABLE=1 $(BIN)/pytest -m slow --override-ini faulthandler_timeout=3600

# pyproject.toml names the oldest versions, which uv can find and pip cannot.
MATRIX := build/matrix

test-matrix: $(READY)  ## Use the wheel and run the tests with the oldest versions that are promised, and with the newest
	rm -rf $(MATRIX)
	$(BIN)/pip install --quiet uv
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir $(MATRIX) .
	$(MAKE) --no-print-directory $(MATRIX)/lowest-direct $(MATRIX)/highest

# What old releases warn of has been mended in new ones.
$(MATRIX)/lowest-direct: WARNINGS := -W ignore::DeprecationWarning

$(MATRIX)/%: export OMP_NUM_THREADS := 1

$(MATRIX)/%:
	$(PYTHON) -m venv $@
	$(BIN)/uv pip install --quiet --python $@/bin/python --resolution $* --requirement pyproject.toml
	$(BIN)/uv pip install --quiet --python $@/bin/python --no-deps $(MATRIX)/*.whl
	$(BIN)/uv pip check --python $@/bin/python
	mkdir $@/used
	cd $@/used && ../bin/irevnet --version && ../bin/irevnet train --epochs 1 && ../bin/irevnet evaluate && \
	  ../bin/irevnet-analyze invert --num-noise 20 --num-images 2 --depths 1,12
	$(BIN)/uv pip install --quiet --python $@/bin/python --resolution $* --editable '.[dev]'
	$(BIN)/uv pip list --python $@/bin/python
	$@/bin/pytest $(ON_ALL_CORES) $(WARNINGS)

lint: $(READY)  ## Check format, style, types and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

format: $(READY)  ## Format the code and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# irevnet imports its names when they are first used, and lists no modules: pdoc has to be shown both.
define BUILD_API
import pkgutil, sys, pdoc.__main__, irevnet
vars(irevnet).update({name: getattr(irevnet, name) for name in irevnet.__all__})
irevnet.__all__ += [module.name for module in pkgutil.iter_modules(irevnet.__path__)]
pdoc.__main__.cli(sys.argv[1:])
endef
export BUILD_API

API := docs/api

docs: $(READY)  ## Write the API reference, from the docstrings, to docs/api/
	$(BIN)/python -c "$$BUILD_API" irevnet analysis figures --docformat google --no-show-source --output-directory $(API)

clean:  ## Remove .venv and caches, but no runs
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage build dist *.egg-info
