# Everything is run as `python -m …`: the first line of a console script breaks where the checkout's path is long.
# PYTHON is the interpreter to set up with, a name or a path, in an environment of its own beside .venv.
PYTHON =
VENV = .venv$(if $(PYTHON),-$(notdir $(PYTHON)))
RUN = $(VENV)/bin/python
ARGS =
ONLY =

# Tests, demo and benchmarks start many processes: without bytecode each of them would compile our modules anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test up bench crash attack additions lint clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    the whole system for real, on this machine, in under a minute"
	@echo "make up      the system until Ctrl-C; prints its URL and key"
	@echo "make test    every test                      (ARGS='-k name' goes to pytest)"
	@echo "make bench   the benchmarks, under 10 minutes (ONLY=name for one)"
	@echo "make crash   the crash campaign, 30 minutes  (CRASH_MINUTES=n, CRASH_SEED=n)"
	@echo "             ARGS=--matrix    every step of the walk × every fault"
	@echo "             ARGS=--seeded    whether the harness finds each seeded bug"
	@echo "             ARGS=--recovery  how long it takes until all is well again"
	@echo "make attack  what strangers do to the API    (ATTACK_SECONDS=n, ARGS=name)"
	@echo "make additions  the additions of CONTRIBUTING, on copies (ARGS=name)"
	@echo "make lint    formatter, linter, types, import contracts"
	@echo "make setup   only the environment in .venv   (the others do it themselves)"
	@echo "make clean   removes the environments and caches"
	@echo ""
	@echo "PYTHON=python3.13 has any of them use that interpreter, set up in .venv-python3.13;"
	@echo "without it, the newest that is found is used, set up in .venv"

setup:
	@sh scripts/setup.sh $(PYTHON)

demo: setup
	@$(RUN) -m examples.demo $(ARGS)

test: setup
	@$(RUN) -m pytest -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

up: setup
	@$(RUN) -m dispatcher up $(ARGS)

bench: setup
	@$(RUN) -m bench $(ONLY) $(ARGS)

crash: setup
	@$(RUN) -m tests.crash $(ARGS)

attack: setup
	@$(RUN) -m tests.attack $(ARGS)

additions: setup
	@$(RUN) scripts/additions.py $(ARGS)

lint: setup
	@$(RUN) -m ruff format --check
	@$(RUN) -m ruff check
	@$(RUN) -m mypy
	@$(RUN) -c "from importlinter.cli import lint_imports_command; lint_imports_command()"

clean:
	rm -rf .venv .venv-* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
