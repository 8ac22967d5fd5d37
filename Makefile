# The one task runner of the project. `make` lists the targets; each builds what it needs by itself in .venv.

# Compiled modules halve the start of every process; an environment that forbids writing them must not slow us down.
unexport PYTHONDONTWRITEBYTECODE

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
UV_VERSION := 0.13.9
# By pip, which looks for ready wheels on the machine too; elsewhere it takes the default build.
TORCH := torch==2.13.0
EXAMPLE ?= tiny_llm
JOBS ?= 4
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Four workers keep the two cores of the smallest supported machine busy: half of the time a test waits for a process.
# With a fifth the slow ones wait for each other. By file, as the tests of a file may share what is dear to make; in the
# order of their folders, which does not leave the long ones to the end.
PYTEST = $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

.PHONY: help setup lock run serve test test-slow test-engines lint fmt bench docs clean

help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Install everything into .venv, from hashed versions

run: $(READY) ## Run the main job (examples/tiny_llm) to its end on this machine; EXAMPLE=breast_cancer: the small one
	@test -f examples/$(EXAMPLE)/main.py || \
	  { echo "error: there is no examples/$(EXAMPLE)/main.py; examples: $(notdir $(wildcard examples/*))" >&2; exit 2; }
	@$(BIN)/python examples/$(EXAMPLE)/main.py $(ARGS)

serve: $(READY) ## Start the API server and its controllers on this machine
	@$(BIN)/mactl serve $(ARGS)

test: $(READY) ## Run the default suite
	$(PYTEST) -m "not slow" $(ARGS)

test-slow: $(READY) ## Run kill storms, long property tests, real servers
	$(PYTEST) -m slow $(ARGS)

test-engines: ## Run the engines' suite against the real vLLM, in an environment of its own (3.5 GB, 5 minutes)
	scripts/engines_environment.sh .venv-engines
	VLLM_CPU_KVCACHE_SPACE=1 OMP_NUM_THREADS=1 .venv-engines/bin/python -m pytest -q -W default tests/engines $(ARGS)

lint: $(READY) ## Check style, types and the layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=examples/tiny_llm $(BIN)/mypy examples/tiny_llm/*.py
	$(BIN)/lint-imports --no-logo

fmt: $(READY) ## Format the code and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY) ## Measure the speed (benchmarks/README.md says how to read it)
	$(BIN)/python benchmarks/run.py $(ARGS)

docs: $(READY) ## Check the documentation: its links, and that it covers every kind and verb
	$(BIN)/python scripts/check_docs.py
	$(BIN)/python -m pytest -q tests/architecture/test_docs.py

lock: $(VENV)/.uv ## Choose new versions of all dependencies
	$(BIN)/uv pip compile --system-certs pyproject.toml --group dev --group examples --all-extras --generate-hashes --universal \
	  --python-version 3.11 --no-annotate --no-header --upgrade -q -o requirements.lock

clean: ## Delete everything that was built
	rm -rf $(VENV) build dist out .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is written last, so an interrupted install starts again. Certificates are those of the system, as for pip:
# a network with an authority of its own is known there.
$(READY): $(VENV)/.uv requirements.lock pyproject.toml
	@echo "Installing into $(VENV)"
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --system-certs -q --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install -q --disable-pip-version-check '$(TORCH)'
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --system-certs -q --no-deps -e .
	@touch $@

$(VENV)/.uv: Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is missing or older than 3.11; name a newer one: make PYTHON=python3.12 …" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { echo "error: $(PYTHON) cannot make a virtual environment; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install -q --disable-pip-version-check 'uv==$(UV_VERSION)'
	@touch $@
