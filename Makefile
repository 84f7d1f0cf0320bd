# `make lab` opens the course, `make test` runs every test; both build .venv first if it is not there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PORT ?= 8888

.PHONY: lab test notebooks clean

lab: $(READY)
	$(BIN)/jupyter trust notebooks/*.ipynb
	$(BIN)/jupyter lab --port=$(PORT) --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb $(LAB_OPTIONS) $(ROOT_OPTIONS) $(DISPLAY_OPTIONS)

test: $(READY)
	DMDKIT_FAST=1 $(BIN)/python -m pytest -n 2 --dist loadfile --nbval-lax --nbval-current-env tests notebooks

# Executes every lesson with its full budget and keeps the outputs: what is committed.
notebooks: $(READY)
	$(BIN)/python tools/notebooks.py run

clean:
	rm -rf $(VENV) runs

# Built once, and again only when pyproject.toml changes.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "dmdkit needs Python 3.10 or newer; name one with: make lab PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --upgrade pip
	$(BIN)/python -m pip install -e ".[lab,test]"
	@touch $@

# Root: Jupyter wants to be told that this is meant. No display: it prints the address and opens nothing.
ROOT_OPTIONS = $(if $(filter 0,$(shell id -u)),--allow-root)
DISPLAY_OPTIONS = $(if $(or $(DISPLAY),$(WAYLAND_DISPLAY),$(filter Darwin,$(shell uname -s))),,--no-browser)
