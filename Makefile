# make run     install what is needed into .venv (once) and start the dashboard
# make test    the same for the development tools, then the whole test suite
# make check   format, lint, import rules and types
# make evaluate-bundled   measure the model in the box; with the third-party texts in CORPUS, its held-out loss too
# make train              make another of its kind from these texts (hours; see training/README.md)
#
# PYTHON=python3.12 make run           another Python for .venv
# TORCH_INDEX=https://... make run     where pip finds the CPU build of torch
# ARGS="..."                           further words for streamlit, pytest, or the measurement
# CORPUS=folder                        where the third-party texts are

PYTHON ?= python3
ARGS ?=
CORPUS ?= ../shared/corpus

venv := .venv
python := $(venv)/bin/python
# The installed project points at this folder: in a folder that was moved or copied, it is installed anew.
here := $(shell pwd | cksum | cut -d' ' -f1)
ready := $(venv)/ready-$(here)
ready_dev := $(venv)/ready-dev-$(here)

.PHONY: run test check check-format check-lint check-imports check-types format evaluate-bundled train force
.DEFAULT_GOAL := run

run: $(ready)
	@$(python) -m dashboard $(ARGS)

test: $(ready_dev)
	@$(python) -m pytest --numprocesses=2 --dist=loadscope --no-loadscope-reorder $(ARGS)

check: check-format check-lint check-imports check-types

check-format: $(ready_dev)
	@$(python) -m ruff format --check .

check-lint: $(ready_dev)
	@$(python) -m ruff check .

check-imports: $(ready_dev)
	@$(venv)/bin/lint-imports --no-logo

check-types: $(ready_dev)
	@$(python) -m mypy

format: $(ready_dev)
	@$(python) -m ruff check --fix-only --quiet .
	@$(python) -m ruff format .

evaluate-bundled: $(ready)
	@$(python) -m training.evaluate --corpus "$(CORPUS)" $(ARGS)

train: $(ready)
	@$(python) -m training.prepare --corpus "$(CORPUS)"
	@$(python) -m training.overlap
	@$(python) -m training.train
	@$(python) -m training.export

$(ready): requirements.txt pyproject.toml .ci/environment.py
	@"$(PYTHON)" .ci/environment.py requirements.txt
	@touch $@

$(ready_dev): requirements-dev.txt requirements.txt pyproject.toml .ci/environment.py
	@"$(PYTHON)" .ci/environment.py requirements-dev.txt
	@touch $(ready) $@

# .venv lost its Python (the one it was made with was removed): make it again, whatever the stamps say.
ifeq ($(wildcard $(python)),)
$(ready) $(ready_dev): force
endif
