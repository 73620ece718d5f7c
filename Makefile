# make ablation    train plain-20/56 and ResNet-20/56 on digits, draw their curves (about two minutes)
# make install     only .venv and what it needs
# make test        the tests, in two processes (WORKERS=8 for eight)
# make soak        a longer fault test: 200 kills, about twenty minutes
# make imagenet-check  plain-18 and ResNet-18 at 224 pixels: prepared, trained, killed, tested by every protocol
# make lint        ruff, mypy, and import-linter for the direction of imports
# make bench       whether a speed has been lost: ratios against benchmarks/reference.json, some minutes
# Each makes .venv first. PYTHON=python3.12 chooses the interpreter: 3.11, 3.12 or 3.13.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2

.PHONY: install ablation test soak imagenet-check lint bench readme clean

install: $(VENV)/installed

ablation: $(VENV)/installed
	$(BIN)/python -m experiments ablation --out=runs/ablation

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist=loadfile --no-loadscope-reorder

# 200 kills of a digits run, against one that was left alone.
soak: $(VENV)/installed-dev
	$(BIN)/python -m tests.training.kills --kills=200

# On the 240 images of shared/data/imagenet_sample.
imagenet-check: $(VENV)/installed-dev
	$(BIN)/python -m tests.data.imagenet.end_to_end --size=224

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/installed
	$(BIN)/python -m benchmarks regression

# Rewrites the README's tables and pictures from the records under results/.
readme: $(VENV)/installed
	$(BIN)/python -m experiments readme

clean:
	rm -rf $(VENV)

$(VENV)/installed: requirements.txt pyproject.toml
	@command -v $(PYTHON) > /dev/null || { echo "error: there is no $(PYTHON); make PYTHON=python3.12 ..." >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $$($(PYTHON) --version) is too old: Python 3.11 or newer is needed; make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@
