# genro-storage: everything from a fresh clone. `make` alone lists what there is.
#
# Everything is installed into .venv; what only Debian can install is named when it is missing (scripts/setup).

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
MOUNTPOINT ?= $(HOME)/storage
# Test files at a time: much of a test is waiting, for a server, a mount or a TTL. In order, so that the many short ones of
# tests/unit come last and both workers end at the same time.
JOBS ?= 2

.DEFAULT_GOAL := help
.PHONY: help mount umount test test-full check format bench matrix docs dist clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 18

mount: $(VENV)/.run ## Set up and mount your home and a scratch folder on ~/storage
	@scripts/try-mount $(BIN) '$(MOUNTPOINT)'

umount: ## Commit what is open and unmount ~/storage
	@$(BIN)/genro-umount '$(MOUNTPOINT)'

test: $(VENV)/.dev ## Set up and run the tests (under 20 minutes)
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder -m 'not long'

test-full: $(VENV)/.dev ## Run all tests, with those that take long
	@$(BIN)/python -m pytest --timeout 1800

check: $(VENV)/.dev ## Lint, format and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(VENV)/.dev ## Format the code and mend what can be mended
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(VENV)/.dev ## Measure against peers, alternating in one run
	@$(BIN)/python -m tests.bench.null_operations
	@$(BIN)/python -m tests.bench.reads --docs docs
	@$(BIN)/python -m tests.bench.writes --docs docs

matrix: $(VENV)/.dev ## Run the contract of the backends, and write what they can do into docs/backends.md
	@GENRO_STORAGE_MATRIX=1 $(BIN)/python -m pytest -q tests/contract

docs: $(VENV)/.docs ## Build the site of the documentation into site/, strictly
	@$(BIN)/python -m sphinx --quiet --fresh-env --fail-on-warning --keep-going docs site
	@echo 'Built: site/index.html'

dist: $(VENV)/.dev ## Build the wheel and the source distribution into dist/
	@$(BIN)/python -m build --no-isolation

clean: ## Remove the virtual environment and what was built
	@rm -rf $(VENV) dist build site .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/.run: pyproject.toml scripts/setup
	@scripts/setup '$(PYTHON)' $(VENV) s3 mount
	@touch $@

$(VENV)/.docs: pyproject.toml scripts/setup
	@scripts/setup '$(PYTHON)' $(VENV) docs docs
	@touch $@

$(VENV)/.dev: pyproject.toml scripts/setup
	@scripts/setup '$(PYTHON)' $(VENV) dev test
	@touch $@
