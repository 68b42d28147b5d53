# Every command starts from a fresh clone: python3 and make are all it needs.
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# A thread pool per process on two cores is enough for the tests, and keeps their numbers the same.
export TOKENIZERS_PARALLELISM := false

.DEFAULT_GOAL := help

.PHONY: help
help:  ## this list
	@grep -hE '^[a-z.-]+:.*##' Makefile | sed -E 's/:.*##/\t/' | expand -t 16

.PHONY: .venv
.venv: $(STAMP)  ## the environment, from pinned and hashed requirements

$(STAMP): requirements.txt requirements-uv.txt pyproject.toml
	python3 -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements-uv.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --no-deps -r requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $(STAMP)

.PHONY: demo
demo: $(STAMP)  ## the study on the embedded model, some minutes -> runs/demo/report.html
	$(BIN)/keygap demo --out runs/demo

.PHONY: test
test: $(STAMP)  ## the tests, under ten minutes on two cores
	$(BIN)/python -m pytest

.PHONY: test-slow
test-slow: $(STAMP)  ## the tests that take longer: simulations, a killed run, the demo whole
	$(BIN)/python -m pytest -m slow

.PHONY: lint
lint: $(STAMP)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.PHONY: format
format: $(STAMP)  ## ruff, in place
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: bench
bench: $(STAMP)  ## what capturing costs, as ratios measured in one run
	$(BIN)/python bench/capture.py
	$(BIN)/python bench/sites.py

.PHONY: pins
pins: $(STAMP)  ## compile requirements.txt anew from pyproject.toml
	$(BIN)/uv pip compile pyproject.toml --extra micro --group dev --group build --universal \
	  --generate-hashes --no-header --no-annotate --no-emit-index-url --python-version 3.11 \
	  --excludes requirements-excluded.txt -o requirements.txt
	echo uv | $(BIN)/uv pip compile - --universal --generate-hashes --no-header --no-annotate \
	  --no-emit-index-url --python-version 3.11 -o requirements-uv.txt

.PHONY: clean
clean:  ## results and caches, not the environment
	rm -rf runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
