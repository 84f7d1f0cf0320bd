# `make lab` opens the course, `make test` runs every test; both build .venv first if it is not there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PORT ?= 8888
# What pip brings besides the library; tests of what is not there are skipped.
EXTRAS ?= lab,test

# Where PyTorch comes from. `auto`: on Linux without an NVIDIA GPU PyTorch's own builds for CPUs, which are a tenth of
# the download, if they can be reached; else PyPI. `pypi`: PyPI. Or the address of an index, or a folder like one.
TORCH_INDEX ?= auto

.PHONY: lab test notebooks site clean

lab: $(READY)
	$(BIN)/python tools/notebooks.py trust
	$(BIN)/jupyter lab --port=$(PORT) --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb $(LAB_OPTIONS) $(ROOT_OPTIONS) $(DISPLAY_OPTIONS)

# One thread a process: two processes, and the kernels of their lessons, share the cores.
test: $(READY)
	DMDKIT_FAST=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --nbval-lax --nbval-current-env tests notebooks

# Executes every lesson with its full budget and keeps the outputs: what is committed.
notebooks: $(READY)
	$(BIN)/python tools/notebooks.py run

# The course as static pages, in build/site; npm brings MathJax.
site: $(READY)
	$(BIN)/python -m pip install -q -e ".[site]"
	$(BIN)/python tools/build_site.py

# The environment alone: what you trained, in runs/, is yours to delete.
clean:
	rm -rf $(VENV)

# Built once, and again only when pyproject.toml changes.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "dmdkit needs Python 3.10 or newer; name one with: make lab PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --upgrade pip
	$(BIN)/python tools/install_torch.py "$(TORCH_INDEX)"
	$(BIN)/python -m pip install -e ".[$(EXTRAS)]"
	@touch $@

# Root: Jupyter wants to be told that this is meant. No display: it prints the address and opens nothing.
ROOT_OPTIONS = $(if $(filter 0,$(shell id -u)),--allow-root)
DISPLAY_OPTIONS = $(if $(or $(DISPLAY),$(WAYLAND_DISPLAY),$(filter Darwin,$(shell uname -s))),,--no-browser)
