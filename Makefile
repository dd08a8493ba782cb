# Needs the virtual environment of README's second line; its folder may be given as BIN=…/bin.
BIN ?= .venv/bin

.PHONY: help check format lint types arrows test bench

help:     ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's|:.*## |\t|' | expand -t 12

check: format lint types arrows test ## everything that a commit must pass

format:   ## the code is formatted (`ruff format` does it)
	$(BIN)/ruff format --check .

lint:     ## ruff's rules
	$(BIN)/ruff check .

types:    ## mypy, strict
	$(BIN)/mypy

arrows:   ## import-linter: who may import whom
	$(BIN)/lint-imports

test:     ## the tests
	$(BIN)/python -m pytest -n 2

bench:    ## the benchmarks, a minute each
	for script in benchmarks/*.py; do $(BIN)/python $$script --quick; done
