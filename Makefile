# `make demo` and `make test` do all the set-up themselves; they need Python >= 3.11, no GPU.
.PHONY: demo test slow kernels notebooks lint format clean

# The first Python that is new enough; PYTHON=/path/to/python overrides it.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
VENV ?= .venv
# What is installed for the tests beside the package; CI adds aot, which compiles for an H200 without one.
EXTRAS ?= dev
# One process a core (each needs about 2 GB); the tests of one file stay together, because they share what they compile.
# A process that crashes ends the run: without the last option, xdist would wait for its tests for ever.
TEST_ARGS ?= -n auto --maxprocesses 4 --dist loadfile --max-worker-restart 0
WHICH ?= not slow
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

demo: $(VENV)/runtime.stamp
	@$(BIN)/svlm demo $(DEMO_ARGS)

test: $(VENV)/dev.stamp
	@$(BIN)/python -m pytest -m "$(WHICH)" $(TEST_ARGS)

# What `make test` leaves out: runs of several processes, and training until a model knows its chunks by heart.
slow:
	@$(MAKE) --no-print-directory test WHICH=slow

# The kernels on a jax with Mosaic GPU (Python 3.12): their suites, and compiled for an H200 and TPUs without either.
NEWER ?= $(shell for p in python3.12 python3.13 python3 ~/.pyenv/versions/3.1[23].*/bin/python3; do \
	$$p -c 'import sys; sys.exit(not (3, 12) <= sys.version_info < (3, 14))' >/dev/null 2>&1 && echo $$p && break; done)
kernels:
	@if test -z "$(NEWER)"; then echo "make kernels: skipped, there is no Python 3.12 or 3.13 here (set NEWER=/path/to/python)."; \
	else $(MAKE) --no-print-directory test VENV=.venv-kernels PYTHON=$(NEWER) EXTRAS=test,aot,aot-tpu \
		TEST_ARGS="tests/aot tests/kernels --no-loadscope-reorder $(TEST_ARGS)"; fi

# The notebooks that people open, from their sources.
notebooks: $(VENV)/dev.stamp
	@$(BIN)/jupytext --quiet --to ipynb notebooks/*.py

lint: $(VENV)/dev.stamp
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(VENV)/dev.stamp
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .venv-kernels demo-output

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "svlm-jax needs Python 3.11 or newer: none found (set PYTHON=/path/to/python)." >&2; exit 2; }
	@echo "creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "cannot create a virtual environment: install your system's python3-venv package." >&2; exit 2; }

# A stamp is newer than what it was installed from; code changes need no reinstall, because the install is editable.
$(VENV)/runtime.stamp: pyproject.toml requirements.txt | $(BIN)/python
	@echo "installing svlm-jax into $(VENV) (once, a minute or two)"
	@$(PIP) install -e .
	@touch $@

$(VENV)/dev.stamp: pyproject.toml requirements.txt | $(BIN)/python
	@echo "installing svlm-jax and its test tools into $(VENV) (once, some minutes)"
	@$(PIP) install -e '.[$(EXTRAS)]'
	@touch $(VENV)/runtime.stamp $@
