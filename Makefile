# Everything is run as `python -m …`: the first line of a console script breaks where the checkout's path is long.
PYTHON = .venv/bin/python
ARGS =
ONLY =

# Tests, demo and benchmarks start many processes: without bytecode each of them would compile our modules anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test up bench crash attack lint clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    the whole system for real, on this machine, in under a minute"
	@echo "make up      the system until Ctrl-C; prints its URL and key"
	@echo "make test    every test                      (ARGS='-k name' goes to pytest)"
	@echo "make bench   the benchmarks, under 10 minutes (ONLY=name for one)"
	@echo "make crash   the crash harness               (CRASH_ROUNDS=n)"
	@echo "make attack  what strangers do to the API    (ATTACK_SECONDS=n, ARGS=name)"
	@echo "make lint    formatter, linter, types, import contracts"
	@echo "make setup   only the environment in .venv   (the others do it themselves)"
	@echo "make clean   removes .venv and caches"

setup:
	@sh scripts/setup.sh

demo: setup
	@$(PYTHON) -m examples.demo $(ARGS)

test: setup
	@$(PYTHON) -m pytest -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

up: setup
	@$(PYTHON) -m dispatcher up $(ARGS)

bench: setup
	@$(PYTHON) -m bench $(ONLY) $(ARGS)

crash: setup
	@$(PYTHON) -m tests.crash $(ARGS)

attack: setup
	@$(PYTHON) -m tests.attack $(ARGS)

lint: setup
	@$(PYTHON) -m ruff format --check
	@$(PYTHON) -m ruff check
	@$(PYTHON) -m mypy
	@$(PYTHON) -c "from importlinter.cli import lint_imports_command; lint_imports_command()"

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
