# make up [DATA=folder] [DOMAIN=anime] [PORT=8000]   install, train (on a sample, or on the data in DATA) and serve
# make test                                           linters, types, import rules, tests
# make bench                                          the load benchmark, printed with the machine
# make image                                          the container image
# make clean                                          removes the virtual environment and caches; data and models in .factotum stay
#
# PYTHON=...       the Python to build the virtual environment with (3.11 or 3.12)
# TORCH_INDEX=...  a package index that holds the CPU build of torch, where the default one would bring the CUDA build

DOMAIN ?= anime
PORT ?=
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PINS := $(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)
INSTALLED := $(VENV)/installed-$(PINS)
TESTABLE := $(VENV)/testable-$(PINS)
WORKERS ?= 2

.PHONY: up test lint bench image clean

up: $(INSTALLED)
	@$(BIN)/factotum up $(DOMAIN) $(if $(DATA),--data "$(DATA)") $(if $(PORT),--port $(PORT))

# The shell line ends with the program itself, so that Ctrl-C and signals reach it and its exit code is ours.

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed; name it: make up PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' \
	    || { echo "$(PYTHON) is not Python 3.11 or 3.12; name one: make up PYTHON=/path/to/python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

# torch first and by itself: asked for together with the rest, pip may take the CUDA build, which is ten times larger.
$(INSTALLED): | $(VENV)/bin/python
	$(PIP) install --quiet -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch==2.13.0
	$(PIP) install --quiet -c constraints.txt -e .
	@rm -f $(VENV)/installed-* && touch $@

$(TESTABLE): $(INSTALLED)
	$(PIP) install --quiet -c constraints.txt -e ".[dev]"
	@rm -f $(VENV)/testable-* && touch $@

lint: $(TESTABLE)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

test: lint
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup

bench: $(INSTALLED)
	$(BIN)/factotum bench serve

image:
	docker build -t factotum .

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
