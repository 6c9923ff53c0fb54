# make demo     from nothing to a trained and evaluated encoder
# make test     formatting, types and the whole test suite
# make install  .venv with slicfast in it: STACK=auto|cpu|cuda12|cuda13, PYTHON=..., TORCH_INDEX=...
# make lint     formatting and types alone
# make clean    remove .venv, the demo's data and run, and caches
# Everything may be run again: what is in place is left as it is.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo test install lint clean

STACK ?= auto
JOBS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$((n < 4 ? n : 4)))
BIN := .venv/bin
export STACK PYTHON TORCH_INDEX

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

install:
	@requirements/install.sh

lint: install
	@echo "==> ruff: rules and formatting"
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet . || { echo "make: not formatted; run $(BIN)/ruff format ." >&2; exit 1; }
	@echo "==> mypy: types"
	@$(BIN)/mypy

test: lint
	@echo "==> pytest on $(JOBS) processes"
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

# Each command by itself leaves alone what is there and goes on with what was begun.
demo: install
	@echo "==> 1 of 5: videos of drawn people in action, as files in data/demo"
	@$(BIN)/slicfast synth data/demo
	@echo "==> 2 of 5: the clip store data/demo-store, made of them"
	@$(BIN)/slicfast prepare data/demo data/demo-store
	@echo "==> 3 of 5: training configs/demo.yaml into runs/demo"
	@$(BIN)/slicfast train configs/demo.yaml --run runs/demo --resume auto
	@echo "==> 4 of 5: what it has learned, by retrieval"
	@$(BIN)/slicfast eval retrieval runs/demo --output runs/demo/retrieval.json
	@echo "==> 5 of 5: the run as a page to look at"
	@$(BIN)/slicfast report runs/demo

clean:
	rm -rf .venv data/demo data/demo-store runs/demo .pytest_cache .mypy_cache .ruff_cache *.egg-info
	find slicfast tests -name __pycache__ -prune -exec rm -rf {} +
