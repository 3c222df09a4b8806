# `make demo` and `make test` do all the set-up themselves; they need Python >= 3.11, no GPU.
.PHONY: demo serve docs test slow newest fuzz mutants kernels device notebooks lint format clean

# The first Python that is new enough; PYTHON=/path/to/python overrides it.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
VENV ?= .venv
# What is installed for the tests beside the package. An environment keeps what it was made with: other EXTRAS, other VENV.
EXTRAS ?= dev
# Not empty: the newest releases of what the extras pin.
UNPINNED ?=
# One process a core (each needs about 2 GB); the tests of one file stay together, because they share what they compile.
# A process that crashes ends the run: without the last option, xdist would wait for its tests for ever.
TEST_ARGS ?= -n auto --maxprocesses 4 --dist loadfile --max-worker-restart 0
WHICH ?= not slow
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

demo: $(VENV)/runtime.stamp
	@$(BIN)/svlm demo $(DEMO_ARGS)

# Live streams through the model of this package: open the printed address, and add a drawn match.
serve: $(VENV)/dev.stamp
	@$(BIN)/svlm serve --model embedded --streams 4 $(SERVE_ARGS)

# The documents as a site in site/.
docs: $(VENV)/dev.stamp
	@$(BIN)/mkdocs build --strict --quiet

test: $(VENV)/dev.stamp
	@$(BIN)/python -m pytest -m "$(WHICH)" $(TEST_ARGS)

# What `make test` leaves out: runs of several processes, and training until a model knows its chunks by heart.
slow:
	@$(MAKE) --no-print-directory test WHICH=slow

# `make test` with the newest releases of what it pins, its oracles before all: what they do otherwise is news, not our fault.
newest:
	@$(MAKE) --no-print-directory test VENV=.venv-newest UNPINNED=yes

# 10,000 damaged files of every kind through their readers, about half an hour; FUZZ_ARGS="--readers subtitles --inputs 500".
fuzz: $(VENV)/dev.stamp
	@$(BIN)/python -m tests.fuzz --out benchmarks/results/fuzz.json $(FUZZ_ARGS)

# Breaks by hand in a copy of the repository, each of which some test must see. The figures go to benchmarks/results.
mutants: $(VENV)/dev.stamp
	@$(BIN)/python -m tests.mutation --out benchmarks/results/mutants.json

# The kernels: their suites, and compiled for an H200 and TPUs without either; on a jax with Mosaic GPU (Python 3.12) where
# there is one.
NEWER ?= $(shell for p in python3.12 python3.13 python3 ~/.pyenv/versions/3.1[23].*/bin/python3; do \
	$$p -c 'import sys; sys.exit(not (3, 12) <= sys.version_info < (3, 14))' >/dev/null 2>&1 && echo $$p && break; done)
kernels:
	@$(MAKE) --no-print-directory test VENV=.venv-kernels PYTHON=$(or $(NEWER),$(PYTHON)) EXTRAS=test,aot,aot-tpu \
		TEST_ARGS="tests/aot tests/kernels --no-loadscope-reorder $(TEST_ARGS)"

# On a machine with a GPU: is everything right there, and how fast? Nine minutes; the same command goes on where it ended.
device: $(VENV)/dev.stamp
	@$(BIN)/python -m benchmarks.device $(DEVICE_ARGS)

# The notebooks that people open, from their sources.
notebooks: $(VENV)/dev.stamp
	@$(BIN)/jupytext --quiet --to ipynb notebooks/*.py

lint: $(VENV)/dev.stamp
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(VENV)/dev.stamp
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .venv-kernels .venv-newest demo-output

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "svlm-jax needs Python 3.11 or newer: none found (set PYTHON=/path/to/python)." >&2; exit 2; }
	@echo "creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "cannot create a virtual environment: install your system's python3-venv package." >&2; exit 2; }

# The names of what the extras for tests pin.
PINNED := $(BIN)/python -c 'import tomllib; \
	extras = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]; \
	print(*(line.split("==")[0] for extra in ("test", "dev") for line in extras[extra] if "==" in line))'

# A stamp is newer than what it was installed from; code changes need no reinstall, because the install is editable.
$(VENV)/runtime.stamp: pyproject.toml setup.py requirements.txt | $(BIN)/python
	@echo "installing svlm-jax into $(VENV) (once, a minute or two)"
	@$(PIP) install -e .
	@touch $@

$(VENV)/dev.stamp: pyproject.toml setup.py requirements.txt | $(BIN)/python
	@echo "installing svlm-jax and its test tools into $(VENV) (once, some minutes)"
	@$(PIP) install -e '.[$(EXTRAS)]'
	@$(if $(UNPINNED),$(PIP) install --upgrade $$($(PINNED)))
	@touch $(VENV)/runtime.stamp $@
