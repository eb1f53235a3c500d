# All there is to do with a checkout. Each target sets up .venv by itself and is quick when nothing changed.

.DEFAULT_GOAL := help
.PHONY: help install dev demo test test-chaos test-gpu check format bench bench-full bench-quality bench-gpu docs-pictures constraints clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Python compiles a module when it is first imported; compiling all of them, most in vain, would double the installation.
unexport PYTHONDONTWRITEBYTECODE
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --no-compile --constraint constraints.txt

# Peers whose statistics ours are tested against, and whose speed ours is measured beside. They ask for torchvision, which
# what is compared does not use, and which does not import beside the CPU build of torch: they are installed without what
# they ask for, in a folder of their own, since other packages would import torch-fidelity where they find it.
PEERS := cd-fvd torch-fidelity video-diffusion-pytorch einops-exts rotary-embedding-torch
WITHOUT_DEPENDENCIES := --no-deps --no-build-isolation --use-pep517

DEMO_DATA := data/moving_digits
DEMO_RUN := runs/demo
# Network of the demo: unet_tiny or dit_tiny
MODEL ?= unet_tiny
DEMO_EXPERIMENT := $(if $(filter dit_tiny,$(MODEL)),dit_digits,moving_digits)
# Options for pytest, e.g. make test ARGS="-k shards"
ARGS ?=

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## Install what using the software needs into .venv

dev: $(VENV)/.installed-dev ## Install what developing it needs as well

# torch comes first and alone: it is then present in the one version and build (CPU or CUDA) that is meant, whatever
# version other packages ask for; chosen along with them, a CUDA build of several GB may come in its place. hatchling
# comes before the project, so that the constraints hold for its build too. The install is a path to this checkout.
$(VENV)/.installed: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing torch into $(VENV) ..."
	@$(PIP) torch
	@echo "Installing vdm and what it needs ..."
	@$(PIP) hatchling
	@$(PIP) --no-build-isolation --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "Installing the tools for development ..."
	@$(PIP) --no-build-isolation --editable ".[dev]"
	@$(PIP) $(WITHOUT_DEPENDENCIES) --upgrade --target $(VENV)/peers $(PEERS)
	@touch $@

demo: install ## Make data, train, sample, evaluate and report on moving digits; MODEL=dit_tiny: a transformer
	$(BIN)/vdm-data build input=moving_digits output=$(DEMO_DATA)
	rm -rf $(DEMO_RUN)
	$(BIN)/vdm train experiment=$(DEMO_EXPERIMENT) data.path=$(DEMO_DATA) hydra.run.dir=$(DEMO_RUN)
	$(BIN)/vdm sample checkpoint=$(DEMO_RUN) prompts_file=docs/demo_prompts.txt output=$(DEMO_RUN)/videos \
	    sampler.num_steps=20 batch_size=16
	$(BIN)/vdm evaluate checkpoint=$(DEMO_RUN) sampler.num_steps=20 batch_size=32 max_clips=128 num_samples=80 \
	    metric=[frechet_digits,prompted_motion]
	@echo
	@echo "The videos are in $(CURDIR)/$(DEMO_RUN)/videos"
	@$(BIN)/vdm report run=$(DEMO_RUN)

test: dev ## Run all tests
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile $(ARGS)

test-chaos: dev ## Run the long tests: kills at random moments, every change of strategy (about an hour)
	$(BIN)/python -m pytest -m chaos -s $(ARGS)

test-gpu: dev ## Run the tests that need a GPU; without one they are skipped
	$(BIN)/python -m pytest -m gpu $(ARGS)

check: dev ## Check format, lint, types and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

format: dev ## Format the code and mend what ruff can mend
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

docs-pictures: dev ## Take the pictures of docs/dashboards.md, from the run of `make demo` and with Chromium
	$(BIN)/vdm report run=$(DEMO_RUN) output=build/report.html
	$(BIN)/python -m tests.docs.pictures build/report.html docs/report.png

bench: dev ## Measure speed and memory beside other projects', in under ten minutes; nothing else should run
	$(BIN)/python -m benchmarks.suite $(ARGS)

bench-full: dev ## The same at all sizes, with growth, loading and memory over time: under 90 minutes
	$(BIN)/python -m benchmarks.suite --full $(ARGS)

bench-quality: dev ## Train for minutes, sample and compare with another project's: hours, and resumes
	$(BIN)/python -m benchmarks.quality $(ARGS)

bench-gpu: dev ## Measure step time, FLOP/s and memory on a GPU
	$(BIN)/python benchmarks/gpu.py $(ARGS)

# What torch itself needs of CUDA is pinned by torch. "+cpu" and the like name a build, not a version, and are cut off.
constraints: ## Renew constraints.txt: the same torch, the newest of all else
	rm -rf build/constraints
	$(PYTHON) -m venv build/constraints
	build/constraints/bin/pip install "$$(grep '^torch==' constraints.txt)" hatchling
	build/constraints/bin/pip install --no-build-isolation --editable ".[pretrained,deepspeed,curation,evaluation,ray,s3,gcs,hub,slurm,demo,dev]"
	build/constraints/bin/pip install $(WITHOUT_DEPENDENCIES) $(PEERS)
	{ echo "# Every version, made by: make constraints"; \
	  build/constraints/bin/pip freeze --all --exclude pip --exclude-editable | sed 's/+[a-z0-9.]*$$//'; } > build/constraints.txt
	mv build/constraints.txt constraints.txt

clean: ## Remove .venv and whatever the tools made; data/ and runs/ stay
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
