# Each target sets up all it needs: a virtual environment from the lock file, and Redis where it may install it.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.8
READY := $(VENV)/.ready

MINUTES ?= 60
EXAMPLES ?= 10000
RUNS ?= 20

.PHONY: help demo test test-cluster lint crds bench bench-gpu bench-operator bench-peers soak soak-worker soak-programs soak-matrix lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

demo: $(READY) ## a conversation that survives the death of its worker (about a minute)
	@$(BIN)/berth demo

test: $(READY) ## unit, component and whole-fleet tests (minutes)
	@$(BIN)/pytest -q -n 2 --dist loadfile

test-cluster: $(READY) ## on a real Kubernetes control plane (minutes, and a long build the first time)
	@$(BIN)/pytest -q tests/cluster

lint: $(READY) ## ruff, mypy --strict, import-linter, layout
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@bash .ci/layout

crds: $(READY) ## write crds/*.yaml anew from api/berth_api/crd
	@$(BIN)/python -m berth_api.crd crds

bench: $(READY) ## what things cost, side by side in one run; writes build/bench
	@$(BIN)/python tests/bench/run.py

bench-gpu: $(READY) ## the GPU backend against the others and the memory's speed; without a GPU, what needs none
	@$(BIN)/python tests/bench/gpu.py

bench-operator: $(READY) ## a thousand sessions on a real control plane: times, writes, the operator's CPU and memory
	@$(BIN)/python tests/bench/operator_costs.py

# An engine that cannot be built is left out, and named.
bench-peers: $(READY) ## beside transformers, llama.cpp and vLLM on this CPU: builds them first (minutes, 6 GB)
	-@$(BIN)/python tests/bench/peers/environments.py
	@$(BIN)/python tests/bench/peers/compare.py

soak: $(READY) ## ten minutes of traffic under kills and restarts, then the checker
	@$(BIN)/python tests/soak/soak.py --minutes 10

soak-worker: $(READY) ## one worker under all kinds of traffic (an hour; MINUTES=…): no leak, no difference
	@$(BIN)/python tests/soak/worker.py --minutes $(MINUTES)

soak-programs: $(READY) ## ten thousand programs of the session state machine (EXAMPLES=…)
	@$(BIN)/python tests/soak/programs.py --examples $(EXAMPLES)

soak-matrix: $(READY) ## the matrix of streaming sessions at full size, twenty times (RUNS=…), minutes each
	@$(BIN)/python tests/soak/matrix.py --runs $(RUNS)

lock: $(READY) ## resolve the dependencies anew into requirements.lock
	@echo 'torch==2.13.0' | $(BIN)/uv pip compile --universal --python-version 3.11 --extra dev --generate-hashes \
		--no-emit-index-url --no-header -q pyproject.toml -c - -o requirements.lock

clean: ## remove what the targets made, the environment included
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# `--no-deps`: every package, with its hash, comes from the lock file and nothing else.
$(READY): requirements.lock pyproject.toml
	@bash .ci/preflight $(PYTHON)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "setting up $(VENV) from requirements.lock (about 5 GB with torch; a minute or two)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check uv==$(UV_VERSION)
	@$(BIN)/uv pip sync -q --require-hashes requirements.lock
	@$(BIN)/uv pip install -q --no-deps -e .
	@touch $@
