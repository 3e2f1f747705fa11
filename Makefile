# Everything a newcomer runs; each target makes its own environment first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= demo
SEED ?= 0
SWAPS ?= 50

.PHONY: demo test test-slow soak check format clean

demo: $(VENV)/installed
	$(BIN)/python -m experiments.factbook_demo.run --directory=$(DEMO) --seed=$(SEED)

test: $(VENV)/installed
	$(BIN)/python -m pytest -n 2 --dist=worksteal --cov --cov-report=term:skip-covered --cov-fail-under=90

test-slow: $(VENV)/installed
	$(BIN)/python -m pytest -m slow

soak: $(VENV)/installed
	$(BIN)/python -m tests.soak --swaps=$(SWAPS) --seed=$(SEED)

check: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_layering.py

format: $(VENV)/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(VENV)/installed: setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV) $(DEMO) build dist *.egg-info
