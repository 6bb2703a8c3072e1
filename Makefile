.PHONY: check demo test test-lab fuzz matrix lint types imports docs bench completions setup clean

PYTHON_BIN := .venv/bin
# One more than the two cores of CI: many tests wait for nodes that hang, and the others need not wait with them.
WORKERS := 3

setup:
	@scripts/setup

check: setup
	@scripts/check

demo: setup
	@$(PYTHON_BIN)/python -m tests.lab.demo

test: setup lint docs
	@$(PYTHON_BIN)/python -m pytest --numprocesses=$(WORKERS)

test-lab: setup
	@EZPZ_TEST_LAB=always $(PYTHON_BIN)/python -m pytest -m broken_only_by

fuzz: setup
	@$(PYTHON_BIN)/python -m tests.fuzz --seconds 60

matrix: setup
	@EZPZ_TEST_MATRIX=whole $(PYTHON_BIN)/python -m pytest --numprocesses=auto tests/relocation/test_matrix.py tests/relocation/test_trace.py

lint: setup
	@$(PYTHON_BIN)/ruff check .
	@$(PYTHON_BIN)/ruff format --check .
	@$(PYTHON_BIN)/mypy
	@$(PYTHON_BIN)/lint-imports

docs: setup
	@NO_MKDOCS_2_WARNING=1 $(PYTHON_BIN)/mkdocs build --strict --quiet

bench: setup
	@$(PYTHON_BIN)/python -m bench

completions: setup
	@$(PYTHON_BIN)/python scripts/completions

clean:
	@rm -rf .venv .cache site .mypy_cache .ruff_cache .pytest_cache .hypothesis
