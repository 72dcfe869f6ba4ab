# make demo | test | lab | notebooks | evidence | clean.   Needs only make and Python >= 3.10; the first call sets up .venv.
# Options: PYTHON=/path/to/python3.12   JOBS=4 (test processes)   LAB_ARGS=--no-browser   NB=nbs/networks/01_blocks.ipynb
#          DEMO_ARGS="--out runs/other"   EVIDENCE_ARGS="--only seeds"   PYTEST_ARGS="-k sampling"   PIP_ARGS=...

SHELL := /bin/sh
BIN := .venv/bin
PY := $(BIN)/python
STAMP := .venv/.installed
JOBS ?= 2
export PYTHONUTF8 := 1

# CI=true: no progress bars, neither pip's nor ours.
ifneq ($(filter-out false 0,$(CI)),)
export TQDM_DISABLE := 1
PIP_ARGS += --quiet --progress-bar off
endif

OK := import sys; sys.exit(sys.version_info < (3, 10))
# An interpreter that does not start (half-made, moved or outdated environment) makes the stamp worthless.
HEALTHY := $(shell $(PY) -c '$(OK)' 2>/dev/null && echo yes)
ifneq ($(HEALTHY),yes)
.PHONY: $(STAMP)
endif

.PHONY: help setup demo test lab notebooks evidence hooks clean
help:
	@echo 'make demo       make clips, train TSN and SDA-TSN, test both, write runs/demo/report.html'
	@echo 'make test       everything the build machine checks'
	@echo 'make lab        JupyterLab on the tour (LAB_ARGS=--no-browser)'
	@echo 'make notebooks  run the notebooks again and keep their outputs (NB=nbs/networks/01_blocks.ipynb for one)'
	@echo 'make evidence   train and question what has no record yet (hours; EVIDENCE_ARGS="--only seeds")'
	@echo 'make hooks      check every commit (needs git)'
	@echo 'make clean      remove caches; .venv, runs and sets stay'

setup: $(STAMP)

$(STAMP): settings.ini setup.py pyproject.toml
	@set -e; \
	if ! $(PY) -m pip --version >/dev/null 2>&1 || [ '$(HEALTHY)' != yes ]; then \
	  found=; \
	  for p in $(if $(PYTHON),'$(PYTHON)',python3 python3.14 python3.13 python3.12 python3.11 python3.10 python); do \
	    if "$$p" -c '$(OK)' >/dev/null 2>&1; then found=$$p; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo 'No Python 3.10 or newer found$(if $(PYTHON), at $(PYTHON)). Install one, or name it: make $(or $(MAKECMDGOALS),setup) PYTHON=/path/to/python3' >&2; \
	    exit 1; \
	  fi; \
	  echo "Setting up .venv with $$("$$found" --version)"; \
	  rm -rf .venv; \
	  "$$found" -m venv .venv || { rm -rf .venv; \
	    echo "$$found cannot make virtual environments. On Debian and Ubuntu: apt install python3-venv. Then run make again." >&2; exit 1; }; \
	fi; \
	rm -f $(STAMP); \
	echo 'Installing the workbench and what it needs (once; several minutes)'; \
	$(PY) -m pip install $(PIP_ARGS) -e '.[dev]' || { \
	  echo 'The installation failed; the lines above say why (no network? disk full?). Run make again: it goes on from here.' >&2; exit 1; }; \
	touch $(STAMP)

demo: $(STAMP)
	@$(PY) -m sda demo $(DEMO_ARGS)

test: export OMP_NUM_THREADS ?= 1
test: $(STAMP)
	@$(PY) -m ruff check sda tests
	@$(PY) -m pytest -n $(JOBS) --dist worksteal $(PYTEST_ARGS)

lab: $(STAMP)
	@$(PY) -m jupyter lab nbs/00_tour.ipynb $(if $(filter 0,$(shell id -u)),--allow-root) $(LAB_ARGS)

notebooks: $(STAMP)
	@$(PY) tests/notebooks.py $(NB)

# resumable: what has a record is skipped; several of these may share the work
evidence: $(STAMP)
	@$(PY) benchmarks/evidence.py $(EVIDENCE_ARGS)
	@$(PY) benchmarks/evidence.py --explain $(EVIDENCE_ARGS)

hooks: $(STAMP)
	@$(PY) -m pre_commit install

clean:
	@rm -rf .pytest_cache .ruff_cache .hypothesis build dist _proc _docs
	@find . -path ./.venv -prune -o -type d \( -name __pycache__ -o -name .ipynb_checkpoints \) -exec rm -rf {} +
	@echo 'Caches are gone. .venv, runs and sets stay; remove them by hand to start over.'
