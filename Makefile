# Everything happens in .venv; the only things needed beforehand are Python (3.11 to 3.13) and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
unexport PYTHONDONTWRITEBYTECODE
export DO_NOT_TRACK := 1

.PHONY: help install demo test unit lint benchmarks compile clean

help: ## Show this help
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(STAMP) ## Make .venv with everything, from pinned requirements

$(STAMP): requirements/all.txt requirements/uv.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes -r requirements/all.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

demo: install ## Watch the loop close: a fleet gets better, refuses a bad update, gets better again
	$(BIN)/edgeloop demo

lint: install ## Style, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: install ## The fast tests only
	$(BIN)/python -m pytest tests/unit tests/test_architecture.py

test: lint ## Everything: style, types, imports, unit, contract, flow and end-to-end tests
	$(BIN)/python -m pytest -n 2 --dist loadfile

benchmarks: install ## Measure every stream again (DATA=DIR BACKBONE=FILE) and rewrite docs/benchmarks.md
	for s in digits cats-dogs wine elec weather; do \
		$(BIN)/edgeloop bench stream $$s --data $(DATA) --backbone $(BACKBONE) --json .edgeloop/bench/$$s.json || exit 1; \
	done
	$(BIN)/edgeloop bench report .edgeloop/bench/*.json --markdown docs/benchmarks.md

compile: install ## Pin the newest allowed versions in requirements/
	UV=$(BIN)/uv requirements/compile.sh

clean: ## Remove .venv and what tools left behind
	rm -rf $(VENV) .venv-peers .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
