# `make help` lists what there is. Each target makes .venv first. PYTHON=python3.12 chooses the interpreter: 3.11, 3.12
# or 3.13.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
WORKERS ?= 2

.PHONY: help install ablation test test-long soak attack docs-commands imagenet-check tpu-check lint docs bench readme clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 24

install: $(VENV)/installed ## .venv with what the package needs

ablation: $(VENV)/installed ## train plain-20/56 and ResNet-20/56 on digits and draw their curves: about two minutes
	$(BIN)/python -m experiments ablation --out=runs/ablation

test: $(VENV)/installed-dev ## the tests, in two processes; WORKERS=8 for eight
	$(BIN)/python -m pytest -n $(WORKERS) --dist=loadfile --no-loadscope-reorder

test-long: $(VENV)/installed-dev ## the tests that take longest, most of them of several processes: some ten minutes
	$(BIN)/python -m pytest -n $(WORKERS) --dist=loadfile --no-loadscope-reorder -m long

soak: $(VENV)/installed-dev ## kill digits runs 200 times and compare them with ones that were left alone: thirty minutes
	$(BIN)/python -m tests.training.kills --kills=200

attack: $(VENV)/installed-dev ## attack what docs/trust.md promises at random, for five minutes: before each release
	$(BIN)/python -m tests.attack --minutes=5

docs-commands: $(VENV)/installed-dev ## run the commands of README and docs/, shortened, in a terminal and in a pipe: minutes
	$(BIN)/python -m tests.documentation.run_commands

# On 240 files of ImageNet in ../shared/data/imagenet_sample, which are not part of the project.
imagenet-check: $(VENV)/installed-dev ## plain-18 and ResNet-18 at 224 pixels: prepare, train, kill, test in every way
	$(BIN)/python -m tests.data.imagenet.end_to_end --size=224

# In a folder of its own: with it, JAX would look for TPUs at every start.
tpu-check: $(VENV)/installed-dev ## compile ResNet-20's step by XLA's TPU compiler and look at it: some minutes
	$(PIP) --no-deps --target $(VENV)/libtpu "$$($(BIN)/python -m tests.aot.libtpu)"
	PYTHONPATH=$(VENV)/libtpu $(BIN)/python -m pytest tests/aot/test_tpu.py

lint: $(VENV)/installed-dev ## ruff, ruff format, mypy and import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The variable turns off a notice about mkdocs 2, which mkdocs-material prints into every build.
docs: $(VENV)/installed-docs ## the documentation site, into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: $(VENV)/installed ## compare speed ratios with benchmarks/reference.json: some minutes
	$(BIN)/python -m benchmarks regression

readme: $(VENV)/installed ## rewrite the tables of README.md and docs/ from the records under results/
	$(BIN)/python -m experiments readme

clean: ## remove .venv and site/
	rm -rf $(VENV) site

$(VENV)/installed: requirements.txt pyproject.toml setup.py
	@command -v $(PYTHON) > /dev/null || { echo "error: there is no $(PYTHON); make PYTHON=python3.12 ..." >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $$($(PYTHON) --version) is too old: Python 3.11 or newer is needed; make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed requirements-dev.txt
	$(PIP) -r requirements-dev.txt
	touch $@

$(VENV)/installed-docs: $(VENV)/installed-dev requirements-docs.txt
	$(PIP) -r requirements-docs.txt
	touch $@
