# Every command works from a fresh clone; it needs python3 and make.
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# One thread pool in a process is enough, and the tokenizers' own warns after every fork.
export TOKENIZERS_PARALLELISM := false

# Two processes of one thread each: most of a test is Python. tests/conftest.py says what shares a process.
PARALLEL := --numprocesses 2 --dist loadscope
test test-lowest test-newest: export OMP_NUM_THREADS := 1

.DEFAULT_GOAL := help

.PHONY: help
help:  ## list the targets
	@grep -hE '^[a-z.-]+:.*##' Makefile | sed -E 's/:.*##/	/' | expand -t 16

.PHONY: .venv
.venv: $(STAMP)  ## install the environment from pinned, hashed requirements

$(STAMP): requirements.txt requirements-uv.txt pyproject.toml
	python3 -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements-uv.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --no-deps -r requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $(STAMP)

.PHONY: demo
demo: $(STAMP)  ## run the study on the embedded model, a few minutes -> runs/demo/report.html
	$(BIN)/keygap demo --out runs/demo

.PHONY: test
test: $(STAMP)  ## run the tests, under ten minutes on two cores
	$(BIN)/python -m pytest $(PARALLEL)

# The tests of the report are skipped where there is none.
.PHONY: browser
browser:  ## install Debian's Chromium, in which the report is tested; needs root
	command -v chromium || { apt-get update && apt-get install --yes --no-install-recommends chromium; }

.PHONY: test-slow
test-slow: $(STAMP)  ## run the slow tests: simulations, a killed run, the whole demo
	$(BIN)/python -m pytest -m slow

# Resolved from pyproject.toml anew each time, not from the pins.
RESOLUTION.lowest := lowest-direct
RESOLUTION.newest := highest
test-lowest: ## run the tests with the oldest releases that pyproject.toml admits, in .venv-lowest
test-newest: ## run the tests with the newest releases, in .venv-newest
.PHONY: test-lowest test-newest
test-lowest test-newest: test-%: .venv-%
	.venv-$*/bin/python -m pytest $(PARALLEL)

.PHONY: .venv-lowest .venv-newest
.venv-lowest .venv-newest: .venv-%: $(STAMP)
	$(BIN)/uv venv --quiet --allow-existing .venv-$*
	$(BIN)/uv pip install --quiet --python .venv-$* --upgrade --resolution $(RESOLUTION.$*) \
	  --excludes requirements-excluded.txt --group dev --group build --editable '.[micro,ray]'

.PHONY: test-lmms
test-lmms: $(STAMP)  ## read tasks of the installed lmms-eval, in .venv-lmms
	$(BIN)/uv venv --quiet --allow-existing .venv-lmms
	$(BIN)/uv pip install --quiet --python .venv-lmms --group dev --group build --editable '.[lmms]'
	.venv-lmms/bin/python -m pytest -m slow tests/benchmarks/sources/test_lmms_installed.py

.PHONY: models
models: .venv-lowest .venv-newest  ## check every family with three releases of transformers -> docs/models.md
	for venv in .venv-lowest .venv-newest $(VENV); do $$venv/bin/python -m tests.models.document record || exit; done
	$(BIN)/python -m tests.models.document write

# A warning of Material's authors about MkDocs 2, which pyproject.toml excludes, is off.
.PHONY: docs
docs: .venv-docs  ## build the documentation -> site/index.html
	$(BIN)/python -m tools.reference
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --quiet --strict

.PHONY: .venv-docs
.venv-docs: $(STAMP)
	$(BIN)/uv venv --quiet --allow-existing .venv-docs
	$(BIN)/uv pip install --quiet --python .venv-docs --group docs

.PHONY: coverage
coverage: $(STAMP)  ## run the tests and print which lines and branches they miss
	$(BIN)/python -m pytest --cov --cov-report=term-missing:skip-covered

.PHONY: lint
lint: ruff types imports sizes dependencies  ## every check of the code: the five below

.PHONY: ruff
ruff: $(STAMP)  ## check style, docstrings and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.PHONY: types
types: $(STAMP)  ## check types with mypy
	$(BIN)/mypy

.PHONY: imports
imports: $(STAMP)  ## check that imports run one way
	$(BIN)/lint-imports

.PHONY: sizes
sizes: $(STAMP)  ## check that functions and files are short
	$(BIN)/python tools/check_sizes.py

.PHONY: dependencies
dependencies: $(STAMP)  ## check that every dependency is used, and that everything used is one
	$(BIN)/deptry src

.PHONY: format
format: $(STAMP)  ## format with ruff, in place, and apply its fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: bench
bench: $(STAMP)  ## measure what capturing, attention and steering cost, as ratios within one run
	$(BIN)/python bench/capture.py
	$(BIN)/python bench/extraction.py
	$(BIN)/python bench/measuring.py
	$(BIN)/python bench/growth.py
	$(BIN)/python bench/sites.py
	$(BIN)/python bench/attention.py
	$(BIN)/python bench/steering.py
	$(BIN)/python bench/steering.py --dtype bfloat16

.PHONY: pins
pins: $(STAMP)  ## compile requirements.txt from pyproject.toml
	$(BIN)/uv pip compile pyproject.toml --extra micro --extra ray --group dev --group build --universal \
	  --generate-hashes --no-header --no-annotate --no-emit-index-url --python-version 3.11 \
	  --excludes requirements-excluded.txt -o requirements.txt
	echo uv | $(BIN)/uv pip compile - --universal --generate-hashes --no-header --no-annotate \
	  --no-emit-index-url --python-version 3.11 -o requirements-uv.txt

.PHONY: wheel
wheel: $(STAMP)  ## build the wheel -> dist
	$(BIN)/uv build --quiet --wheel --no-build-isolation --python $(BIN)/python --clear --out-dir dist

# The pins make the demo's table comparable byte by byte; "make try-wheel PINS=" takes the newest releases.
PINS := --pins requirements.txt
.PHONY: try-wheel
try-wheel: wheel runs/demo/gap.csv  ## install the wheel with pip in an empty environment, run the demo there
	$(BIN)/python tools/try_wheel.py $(PINS) dist/keygap-*.whl

runs/demo/gap.csv: | $(STAMP)
	$(MAKE) demo

.PHONY: clean
clean:  ## remove results and caches, keep the environment
	rm -rf runs dist site build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage
