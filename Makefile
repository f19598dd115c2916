# What CI runs is what a developer runs: .ci/run calls `make check test`.
PYTHON ?= python3
DEMO_ARGS ?=
SERVE_ARGS ?=
PYTEST_ARGS ?=
BENCH_ARGS ?=
LAB_DIR ?= data/lab

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DUCKDB1 := $(VENV)/duckdb1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo serve test test-gpu check format bench lab lab-quick browser clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(INSTALLED) ## Set up .venv with everything that the demo and the tests need (PYTHON=python3.12)

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "DPPO Lens needs Python 3.11 or newer; \`$(PYTHON)\` is: $$($(PYTHON) --version 2>&1)."; \
	  echo "Name another one: make install PYTHON=python3.12"; exit 1; } >&2
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1' # the first with --group
	$(BIN)/python -m pip install --editable '.[all]' --group dev
	@touch $@

demo: install ## Score a real run of a real model and serve its dashboard (DEMO_ARGS=--exit stops before that)
	$(BIN)/dppo demo $(DEMO_ARGS)

serve: install ## Serve ./data on http://127.0.0.1:8000 (SERVE_ARGS="--port 9000")
	$(BIN)/dppo serve $(SERVE_ARGS)

# Three workers for two cores, since a test often waits for its server; a file of tests to each, so that a file's
# servers start once. In their order: those with few tests are slow, and would be left for the end.
WORKERS := -n 3 --dist loadfile --no-loadscope-reorder

# Both DuckDB majors are supported: the store's tests run again on an overlay with the older one.
test: install browser $(DUCKDB1)/.installed ## Run all tests, then the store's once more on DuckDB 1.x
	$(BIN)/python -m service.worker.demo_base .cache/SmolLM2-135M-Instruct
	$(BIN)/python -m pytest $(WORKERS) $(PYTEST_ARGS)
	DPPO_TEST_DUCKDB=1 PYTHONPATH=$(CURDIR)/$(DUCKDB1) $(BIN)/python -m pytest $(WORKERS) tests/store

$(DUCKDB1)/.installed: $(INSTALLED)
	rm -rf $(DUCKDB1)
	$(BIN)/python -m pip install --quiet --no-deps --target $(DUCKDB1) 'duckdb<2'
	@touch $@

test-gpu: install ## Run the tests that need a CUDA device, or say that there is none
	@cuda=$$($(BIN)/python -c 'import torch; print(torch.cuda.is_available())') || exit 1; \
	if [ "$$cuda" = True ]; then $(BIN)/python -m pytest -m gpu $(PYTEST_ARGS); \
	else echo "SKIPPED: torch sees no CUDA device on this machine; no GPU test ran."; fi

check: install ## Lint, formatting, types and the import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install ## Rewrite the code as `make check` wants it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install ## Run the benchmarks
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

# A fresh copy of the stored runs of benchmarks/lab, compared with them; what LAB_DIR has already is kept.
lab: install ## Train the lab's main experiment on two cores and report (LAB_DIR=data/lab)
	$(BIN)/dppo lab run --experiment main --processes 2 --dir $(LAB_DIR)
	$(BIN)/dppo lab report --dir $(LAB_DIR) --against benchmarks/lab

lab-quick: install ## Train two methods for some steps and check losses and masks; `make test` does it too
	$(BIN)/python -m pytest -q tests/lab/test_quick.py

BROWSER_HINT := Chromium is missing, which the browser tests need: sudo apt-get install chromium

browser: ## Install Debian's Chromium for the browser tests, where it is missing and we may
	@if command -v chromium >/dev/null; then exit 0; fi; \
	if ! command -v apt-get >/dev/null; then echo "$(BROWSER_HINT)"; exit 0; fi; \
	if [ "$$(id -u)" = 0 ]; then sudo=; \
	elif sudo -n true 2>/dev/null; then sudo='sudo -n'; \
	else echo "$(BROWSER_HINT)"; exit 0; fi; \
	set -ex; $$sudo apt-get update -qq; \
	$$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core

clean: ## Remove caches and build output (.venv and data stay)
	rm -rf dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
