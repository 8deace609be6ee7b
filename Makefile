# Everything starts from Python >= 3.11, gcc and make; nothing else has to be installed by hand.
#   make quickstart   install, then measure, search and verify on this machine
#   make test         install, then lint, types, import contract and the default tests
#   make integration  install, then the slow tests and whole journeys on emulated boards (root; else skipped)
#   make integration-boards  only the journeys
#   make board        start an emulated board to play with (root; `make board-stop` ends it)
# PYTHON=python3.12   another interpreter       PIP_FLAGS=...   extra flags for pip, for example an
# index that holds another build of torch (CUDA, ROCm, or the CPU build for your platform).
# PROCESSES=4         run tests in four processes instead of two (0: in one, needed by a debugger)
# PYTEST_FLAGS=...    what pytest shall get too: make unit PYTEST_FLAGS="tests/store -k kill"

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help install quickstart test lint types imports agent-syntax unit integration integration-boards board board-stop bench docs clean

PYTHON ?= python3
PIP_FLAGS ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST_FLAGS ?=
PROCESSES ?= 2
# Tests marked `alone` wait until nothing runs beside them (tests/turns.py).
PYTEST_SPLIT := -n $(PROCESSES) --dist worksteal

help:
	@grep -E '^#  ' Makefile | sed 's/^#//'
	@echo "   targets: install quickstart test integration integration-boards board board-stop bench docs clean"

install: $(STAMP)

# The stamp is written last: an interrupted installation is simply done again.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "hwnas needs Python >= 3.11; '$(PYTHON)' is older. Try: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (torch $$(sed -n 's/^torch==//p' constraints.txt); another build: make install PIP_FLAGS=\"--extra-index-url URL\")"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt -e '.[dev]' 2> >(grep -v 'is ignored: it is neither a file' >&2 || true)
	@touch $(STAMP)

quickstart: install
	$(BIN)/hwnas quickstart

test: lint types imports agent-syntax unit

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

imports: install
	$(BIN)/lint-imports

# The agent runs on boards with old interpreters.
agent-syntax: install
	$(BIN)/vermin --quiet --violations -t=3.8- --no-tips device_agents

unit: install
	$(BIN)/pytest $(PYTEST_SPLIT) $(PYTEST_FLAGS)

integration: install
	$(BIN)/pytest $(PYTEST_SPLIT) -m "slow and not hardware" --ignore=tests/integration --durations=15 $(PYTEST_FLAGS)
	$(MAKE) integration-boards

# Builds the emulated board where that is possible: eight minutes the first time (Debian packages),
# then kept in ~/.cache/hwnas-board. Each process has boards of its own, which its files share.
integration-boards: install
	$(BIN)/python tools/qemu_board build --or-skip
	$(BIN)/pytest -n $(PROCESSES) --dist loadfile -m "slow and not hardware" --durations=15 $(PYTEST_FLAGS) tests/integration

board: install
	$(BIN)/python tools/qemu_board build
	$(BIN)/python tools/qemu_board start --adb

board-stop:
	$(BIN)/python tools/qemu_board stop

bench: install
	$(BIN)/hwnas bench measure --device local --n 50

docs: install
	$(BIN)/python tools/gen_cli_docs.py
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
