# `make help` lists the targets. ARGS="..." adds arguments to what run, test and bench start;
# PYTHON=python3.13 chooses the interpreter.

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
ARGS ?=

# Where bytecode is not kept, each of the many processes of the tests compiles everything again.
unexport PYTHONDONTWRITEBYTECODE

# The first Python that runs (a pyenv shim may be there and not run), is 3.11 or later, and has
# what venv needs (Debian keeps ensurepip in a package of its own).
ifndef PYTHON
PYTHON := $(shell for python in python3 python3.11 python3.12 python3.13 python3.14; do \
	$$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' \
		2>/dev/null && echo $$python && break; done)
endif

# An environment holds absolute paths and belongs to one Python. The stamps' names tell them, so
# that a copied checkout does not run the code of the one it was copied from.
ID := $(shell { pwd; $(PYTHON) --version || :; } 2>/dev/null | cksum | cut -d ' ' -f 1)
MADE := $(VENV)/made-$(ID)
INSTALLED := $(VENV)/installed-$(ID)
INSTALLED_DEV := $(VENV)/installed-dev-$(ID)
INSTALLED_SOAK := $(VENV)/installed-soak-$(ID)

# How many tests run at a time: four more than there are processors, as most of them wait for processes
# that they start.
JOBS ?= $(shell expr 4 + $$(nproc))
PYTEST := $(BIN)/python -m pytest -q --numprocesses $(JOBS) --dist worksteal

# How often `make stress` runs all tests.
N ?= 10

# How much `make soak` tries: 0.1 a tenth, 3 three times as much.
SOAK ?= 1

.PHONY: help run test stress soak lint docs bench clean

help:  ## show this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 16

run: $(INSTALLED)  ## set up and run the demo: a simulated farm and the daemon
	$(BIN)/piw-indexer demo $(ARGS)

test: $(INSTALLED_DEV)  ## set up and run the tests
	$(BIN)/python -m tests.needs
	$(PYTEST) -m "not soak" $(ARGS)

stress: $(INSTALLED_DEV)  ## run all tests N times while every processor is busy
	$(BIN)/python -m tests.needs
	$(BIN)/python -m tests.stress $(N) $(PYTEST) -m "not soak" $(ARGS)

soak: $(INSTALLED_SOAK)  ## kill, cut the power, fail the disk, fuzz: for over an hour
	$(BIN)/python -m tests.needs
	PIW_INDEXER_SOAK=$(SOAK) $(BIN)/python -m pytest -q -m "crash or soak or property" \
		-o faulthandler_timeout=3600 $(ARGS)

lint: $(INSTALLED_DEV)  ## check format, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m tests.documentation.manual --check

docs: $(INSTALLED_DEV)  ## make docs/commands.md and the man pages from the commands
	$(BIN)/python -m tests.documentation.manual

bench: $(INSTALLED_DEV)  ## measure the speeds that the design promises
	$(BIN)/python -m tests.bench $(ARGS)

clean:  ## remove the environment and everything made
	rm -rf $(VENV) build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find indexer schema tests -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

$(MADE):
	@test -n '$(PYTHON)' || { \
		echo 'make: no Python 3.11 or later with venv found: install one (Debian: apt-get' \
			'install python3-venv), or name it: make PYTHON=/path/to/python3' >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(INSTALLED): pyproject.toml $(MADE)
	$(PIP) install --editable .
	@touch $@

$(INSTALLED_DEV): pyproject.toml $(MADE)
	$(PIP) install --editable '.[dev]'
	@# pytest compiles the tests in a way of its own: once here, not in every worker at once.
	@$(BIN)/python -m pytest -q --collect-only > /dev/null 2>&1 || true
	@touch $@ $(INSTALLED)

$(INSTALLED_SOAK): pyproject.toml $(MADE)
	$(PIP) install --editable '.[dev,soak]'
	@touch $@ $(INSTALLED) $(INSTALLED_DEV)
