# Esteira: everything a person or CI does here. `make help` lists it.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
MEMBERS := kernel shared services/etl services/trainer services/predictor services/monitor cli
INSTALLED := $(VENV)/.installed
COMPILED := kernel/hatch_build.py $(wildcard kernel/src/esteira_kernel/*.zig)
PEERS := .bench-peers
PEERS_INSTALLED := $(PEERS)/.installed
ARGS ?=
WORKERS ?= 2

.PHONY: help install demo test check format bench bench-serving lock clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(INSTALLED) ## Make .venv with everything, hash-checked

demo: $(INSTALLED) ## Run the whole loop on a year of real flights (ARGS="--exit --months 4-6")
	$(BIN)/esteira demo $(ARGS)

test: $(INSTALLED) ## Run all tests, two files at a time (ARGS="-k drift", WORKERS=0 for one after another)
	$(BIN)/python -m pytest --numprocesses=$(WORKERS) --dist=loadfile --no-loadscope-reorder $(ARGS)

check: $(INSTALLED) ## Format, lint, types, import contracts, each member installed alone
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python -m ziglang fmt --check kernel/src
	$(BIN)/mypy $(addsuffix /src,$(MEMBERS))
	$(BIN)/lint-imports
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec docker-compose.yml
	$(BIN)/actionlint -shellcheck=$(BIN)/shellcheck
	$(BIN)/zizmor --offline --quiet --no-progress .github
	$(BIN)/yamllint --strict .github docker-compose.yml infra services
	$(BIN)/shellcheck .ci/run infra/*.sh
	$(BIN)/hadolint --failure-threshold=warning services/*/Dockerfile infra/mlflow/Dockerfile
	$(BIN)/python tests/members.py

format: $(INSTALLED) ## Format the code and mend what the linter can
	$(BIN)/ruff check --fix --exit-zero .
	$(BIN)/ruff format .

bench: $(INSTALLED) ## Run the benchmarks
	$(BIN)/python tests/bench/scoring.py $(ARGS)

bench-serving: $(INSTALLED) $(PEERS_INSTALLED) ## Measure the predictor beside its peers (ARGS="--quick")
	$(BIN)/python tests/bench/serving.py --peers $(PEERS) $(ARGS)

lock: $(INSTALLED) ## Lock every member's dependencies anew, with hashes
	$(BIN)/python tests/lock.py

clean: ## Remove .venv, .bench-peers and all state of the local stack
	-test -x $(BIN)/esteira && $(BIN)/esteira down
	rm -rf $(VENV) $(PEERS) .esteira

$(INSTALLED): requirements.txt $(addsuffix /pyproject.toml,$(MEMBERS)) $(COMPILED)
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "Esteira needs Python 3.11 or newer: install it, or say make PYTHON=/path/to/python"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation \
		--refresh-package esteira-kernel $(addprefix -e ,$(MEMBERS))
	@touch $@

$(PEERS_INSTALLED): tests/bench/peers/requirements.txt | $(INSTALLED)
	test -x $(PEERS)/bin/python || $(BIN)/uv venv --quiet --python $(PYTHON) $(PEERS)
	$(BIN)/uv pip sync --quiet --python $(PEERS)/bin/python --require-hashes $<
	@touch $@
