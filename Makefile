# Everything a contributor or a reader needs, one target for one thing. Nothing has to be installed first but Python (3.11 or
# newer, with venv) and make: each target sets up what it needs in .venv, once.
#
# Paths are relative on purpose: the folder may have a space in its name.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip --quiet --disable-pip-version-check

.PHONY: help lesson test check format lint types imports lessons snap bench campaign docs dist clean

help: ## say what there is
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 18

lesson: $(VENV)/run.stamp ## open the lesson 3-vhost (another one: make lesson L=...)
	@$(RUN) -m virtviz lesson $(or $(L),3-vhost)

test: $(VENV)/test.stamp ## run the tests
	@$(RUN) -m pytest --numprocesses auto

check: format lint types imports test ## the whole gate, ending with the tests

format: $(VENV)/dev.stamp ## is everything formatted?
	@$(RUN) -m ruff format --check .

lint: $(VENV)/dev.stamp ## look for mistakes
	@$(RUN) -m ruff check .

types: $(VENV)/dev.stamp ## check the types
	@$(RUN) -m mypy

imports: $(VENV)/dev.stamp ## do rooms import downwards only?
	@$(VENV)/bin/python -c "from importlinter.cli import lint_imports_command as main; main()"

lessons: $(VENV)/run.stamp ## check every lesson by playing it
	@$(RUN) -m virtviz check lessons/*.yaml

snap: $(VENV)/test.stamp ## draw the screen's snapshots anew; look at each before committing it
	@$(RUN) -m pytest tests/ui --snapshot-update

bench: $(VENV)/dev.stamp ## measure against the baselines
	@$(RUN) -m benchmarks

campaign: $(VENV)/test.stamp ## long searches: many more examples, a minute of fuzzing
	@$(RUN) -m pytest -m campaign

docs: $(VENV)/run.stamp ## draw the pictures of the documentation anew
	@$(RUN) docs/pictures.py

dist: $(VENV)/dev.stamp ## build the wheel
	@$(PIP) install build && $(RUN) -m build

clean: ## remove what was set up and built
	@rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(VENV)/pip.stamp:
	@echo "setting up $(VENV) (once)" >&2
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "virtviz needs Python 3.11 or newer; say which: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ echo "this Python cannot make virtual environments; on Debian: apt install python3-venv" >&2; exit 1; }
	@$(PIP) install --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/run.stamp: $(VENV)/pip.stamp pyproject.toml
	@echo "installing what virtviz needs" >&2
	@$(PIP) install --editable .
	@touch $@

$(VENV)/test.stamp: $(VENV)/run.stamp
	@echo "installing what the tests need" >&2
	@$(PIP) install --group test
	@touch $@

$(VENV)/dev.stamp: $(VENV)/test.stamp
	@echo "installing what development needs" >&2
	@$(PIP) install --group dev
	@touch $@
