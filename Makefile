# Everything runs from .venv, made on first use with python3, venv and pip alone.
PYTHON ?= python3
BIN := .venv/bin
QUIET := --quiet --disable-pip-version-check --no-compile

.PHONY: demo test test-long coverage lint types clean

demo: .venv/installed
	$(BIN)/planaria-lab demo

# Two files at a time: threads of small tensors would wait for one another.
test: .venv/developed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# Long ones too, and hypothesis draws anew, and more, each time.
test-long: .venv/developed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m '' --hypothesis-profile=explore

coverage: .venv/developed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --cov=planaria --cov-report=term:skip-covered

lint: .venv/developed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/developed
	$(BIN)/mypy

.venv/installed: pyproject.toml lab/pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install $(QUIET) -c constraints.txt -e '.[pictures]' -e lab
	touch $@

.venv/developed: pyproject.toml lab/pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install $(QUIET) -c constraints.txt -e '.[dev,pictures]' -e lab
	touch .venv/installed $@

clean:
	rm -rf .venv demo
