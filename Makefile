# Needs the virtual environment of README's second line; its folder may be given as BIN=…/bin.
BIN ?= .venv/bin

.PHONY: help check format lint types arrows test bench secrets

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

SECRETS ?= secrets
PASSWORDS = postgres_superuser postgres_tuner postgres_mlflow mlflow_password mlflow_worker_password \
  mlflow_session_key

# The folder keeps others out; the files must be readable by the containers' users, who are none of this machine.
secrets:  ## random passwords for docker-compose.yml, where there are none yet
	@mkdir -p -m 700 $(SECRETS)
	@for name in $(PASSWORDS); do \
	  test -s $(SECRETS)/$$name || head -c 24 /dev/urandom | base64 | tr '+/' '-_' > $(SECRETS)/$$name; \
	  chmod 444 $(SECRETS)/$$name; \
	done
	@echo "$(SECRETS)/ has: $(PASSWORDS)"
