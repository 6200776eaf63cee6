# Two commands on a fresh machine: `make demo` and `make test`. Each sets up what it needs.
PYTHON ?= python3
VENV   := .venv
RUN    := $(VENV)/bin/python

.PHONY: setup demo test lint docs

setup: $(VENV)/.ready

$(VENV)/.ready: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet uv
	$(VENV)/bin/uv pip install --quiet --python $(RUN) --editable '.[dev]'
	touch $@

demo: setup
	$(RUN) -m medseg demo -o demo_output

# One process per core and one thread in each: together they are faster than one process with all the cores.
test: setup
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n auto --maxprocesses 4 --dist loadfile

lint: setup
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

docs: setup
	$(RUN) tools/docs/make_docs.py
	$(RUN) -m pytest tests/test_docs.py
