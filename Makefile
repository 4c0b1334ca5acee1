# Each target sets itself up: a virtual environment of its own, from constraints.txt.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKDIR ?= runs/demo

.PHONY: help demo test lint laws bench native parity faults docs clean

help:
	@echo "make demo    train a language model on this Python's own library, and sample from it"
	@echo "make test    format, lint, types and tests"
	@echo "make laws    what make test leaves out: much like what it runs"
	@echo "make bench   sequences beside other libraries, with and without the C++ kernels: an hour or so"
	@echo "make native  the C++ kernels, built, installed and tested"
	@echo "make parity  every cell beside other libraries and papers; writes docs/parity.md"
	@echo "make faults  kills, full disks, damaged and hostile files; writes docs/faults.md: 25 minutes"
	@echo "make docs    the reference, in build/docs"

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else f"Python 3.11 to 3.13 is needed, this is {sys.version.split()[0]}; say: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[experiments,tests]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/python -m experiments.language_model --workdir $(WORKDIR)

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder

laws: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder -m long

bench: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[tests,parity]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt ./native
	$(BIN)/python -m experiments.benchmarks.sequence

native: $(VENV)/.installed
	$(BIN)/python -m pip install ./native
	$(BIN)/python -m pytest tests/test_native.py
	$(BIN)/python -m pytest native/tests

parity: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[tests,parity]'
	$(BIN)/python -m tests.parity

faults: $(VENV)/.installed
	$(BIN)/python -m tests.faults --write docs/faults.md

docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	$(BIN)/python -m pdoc --output-directory build/docs jaxlstm

clean:
	rm -rf $(VENV) build *.egg-info
