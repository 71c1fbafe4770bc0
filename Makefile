# What a person or a CI types; everything else is Python in tools/. Needs git, make and Python >= 3.10 with venv
# (Debian: python3-venv); what a target needs beyond that it fetches from the package registries itself.

SHELL  := /bin/bash
PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
# -qq: pip prints errors only. --prefer-binary: no compiler is needed.
PIP    := $(PY) -m pip --disable-pip-version-check --no-input
INSTALL := $(PIP) install -qq --prefer-binary
NODE   := $(PY) tools/node.py
SCALE  ?= 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test lab js lint docs dist bench faults test-gpu test-scale test-receivers clean

help:  ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile
	@echo '  variables: PYTHON=python3.12  CHROME=/path/to/chromium  ONLY=part,part  ARGS="-k word"  SCALE=0.1'

# ------------------------------------------------------------------------------------------------------- environments
# A stamp per group of packages: made anew when pyproject.toml changed.

$(VENV)/.stamp-pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	  || { echo 'Python >= 3.10 is needed; try: make PYTHON=python3.12'; exit 1; }
	@test -x $(PY) || $(PYTHON) -m venv $(VENV) \
	  || { rm -rf $(VENV); echo 'Python has no venv; try: sudo apt-get install -y python3-venv'; exit 1; }
	@echo '== $(VENV): pip'
	@$(INSTALL) -U 'pip>=25.1'   # the first that installs dependency groups
	@touch $@

$(VENV)/.stamp-demo: $(VENV)/.stamp-pip pyproject.toml
	@echo '== $(VENV): the package with its engine, nbclient, nbconvert'
	@$(INSTALL) -e '.[local]' --group demo
	@touch $@

$(VENV)/.stamp-test: $(VENV)/.stamp-pip pyproject.toml
	@echo '== $(VENV): the package, JupyterLab, Playwright and the tools of the tests'
	@$(INSTALL) -e '.[local,graph,hub,otlp]' --group dev --group notebook
	@touch $@ $(VENV)/.stamp-demo

$(VENV)/.stamp-docs: $(VENV)/.stamp-pip pyproject.toml
	@echo '== $(VENV): mkdocs'
	@$(INSTALL) --group docs
	@touch $@

.venv-floor/.stamp: pyproject.toml constraints/kaggle.txt tools/floor.py
	@$(PYTHON) tools/floor.py .venv-floor
	@touch $@

.venv-scale/.stamp: $(VENV)/.stamp-test pyproject.toml
	@echo '== .venv-scale: Ray Serve, which is large'
	@$(PY) -m venv --clear .venv-scale
	@.venv-scale/bin/python -m pip install -qq --disable-pip-version-check -U 'pip>=25.1'
	@.venv-scale/bin/python -m pip install -qq --disable-pip-version-check --prefer-binary 'ray[serve]>=2.40' \
	  httpx pytest pytest-timeout -e '.[local]'
	@touch $@

.venv-peers/.stamp: $(VENV)/.stamp-test constraints/peers.txt
	@echo '== .venv-peers: what make bench compares with'
	@$(PY) -m venv --clear .venv-peers
	@.venv-peers/bin/python -m pip install -qq --disable-pip-version-check -U pip
	@.venv-peers/bin/python -m pip install -qq --disable-pip-version-check --prefer-binary -r constraints/peers.txt -e '.[local]'
	@touch $@

.venv-receivers/.stamp: $(VENV)/.stamp-test pyproject.toml
	@echo '== .venv-receivers: Phoenix, which is large'
	@$(PY) -m venv --clear .venv-receivers
	@.venv-receivers/bin/python -m pip install -qq --disable-pip-version-check -U 'pip>=25.1'
	@.venv-receivers/bin/python -m pip install -qq --disable-pip-version-check --prefer-binary 'arize-phoenix>=15.10'
	@touch $@

js/node_modules/.stamp: $(VENV)/.stamp-test js/package.json js/package-lock.json
	@echo '== js/node_modules'
	@$(NODE) npm install --no-save --prefix js --no-audit --no-fund --loglevel=error
	@touch $@

# ------------------------------------------------------------------------------------------------------------ targets

demo: $(VENV)/.stamp-demo  ## run the quickstart on a real model; results in build/demo/ (no browser, no Node)
	@$(PY) tools/demo.py

test: $(VENV)/.stamp-test .venv-floor/.stamp js/node_modules/.stamp  ## every test: units, engine, browser, Kaggle's versions
	@$(PY) tools/suite.py

lab: $(VENV)/.stamp-test  ## JupyterLab with the quickstart open
	@$(PY) -m jupyterlab notebooks/01-quickstart.ipynb $(if $(filter 0,$(shell id -u)),--allow-root) $(ARGS)

js: js/node_modules/.stamp  ## build the widgets' bundles into the package
	@cd js && ../$(PY) ../tools/node.py node build.mjs

lint: $(VENV)/.stamp-test js/node_modules/.stamp  ## ruff, mypy, import-linter, tsc, biome
	@$(PY) tools/lint.py

docs: $(VENV)/.stamp-demo $(VENV)/.stamp-docs  ## the documentation, into build/site/
	@$(PY) tools/report.py
	@$(PY) tools/tables.py
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet
	@echo 'build/site/index.html'

dist: $(VENV)/.stamp-test  ## wheel and sdist, checked in a clean environment
	@$(PY) tools/dist.py

bench: .venv-peers/.stamp  ## measure against peers; ONLY=id,id runs a part
	@ONLY='$(ONLY)' $(PY) -m bench

faults: $(VENV)/.stamp-test  ## the long fault campaigns (SCALE=1; make test runs a tenth)
	@mkdir -p build/faults
	@SCALE=$(SCALE) FAULTS_JSON=build/faults/results.json $(PY) -m pytest -m faults --timeout=3600 $(ARGS)

test-gpu: $(VENV)/.stamp-test  ## the tests that need a CUDA device
	@$(PY) -m pytest -m gpu $(ARGS)

test-scale: .venv-scale/.stamp  ## attach to a real Ray Serve app over our engine
	@.venv-scale/bin/python -m pytest tests/scale -m scale -o filterwarnings= $(ARGS)

test-receivers: .venv-receivers/.stamp  ## a real Phoenix shows our spans unchanged
	@PHOENIX=.venv-receivers/bin/phoenix $(PY) -m pytest tests/receivers -m receivers $(ARGS)

clean:  ## remove environments and build results
	rm -rf .venv .venv-floor .venv-peers .venv-scale .venv-receivers build dist js/node_modules
