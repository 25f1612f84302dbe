# `make run` shows a Database becoming Running; `make test` proves it. Both need Python 3.11 or newer and nothing else;
# with Go on the machine the tests also build and use a real kube-apiserver.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=
SOAKED := tests/faults tests/unit/ha/test_simulator.py tests/e2e/test_prometheus.py tests/e2e/test_bench.py \
	tests/e2e/test_crash_at_each_effect.py

.PHONY: run test soak check format hooks bench manifests docs pins clean
.DEFAULT_GOAL := test

$(VENV)/.installed: pyproject.toml requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit("asyncctl needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; say make PYTHON=python3.x") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

run: $(VENV)/.installed
	@$(BIN)/asyncctl dev --demo $(ARGS)

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 $(ARGS)

# What `make test` does once, or for seconds, it does ten times, or for minutes.
soak: $(VENV)/.installed
	ASYNCCTL_TEST_SOAK=1 $(BIN)/python -m pytest $(SOAKED) $(ARGS)

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports
	$(BIN)/python -m secretscan

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

hooks: $(VENV)/.installed
	git config core.hooksPath .githooks

manifests: $(VENV)/.installed
	$(BIN)/asyncctl manifests --output manifests

docs: $(VENV)/.installed
	$(BIN)/python -m asyncctl.generate.metrics asyncctl.database.metrics:DatabaseMetrics > docs/metrics.md

build/bench-venv/.installed: bench/requirements.txt
	$(PYTHON) -m venv build/bench-venv
	build/bench-venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement bench/requirements.txt
	@touch $@

bench: $(VENV)/.installed build/bench-venv/.installed
	$(BIN)/python -m bench $(ARGS)

pins:
	rm -rf build/pins && $(PYTHON) -m venv build/pins
	build/pins/bin/python -m pip install --quiet --upgrade '.[fast,dev]' $$(grep '^#:' requirements-dev.txt | cut -c4-)
	{ grep '^#' requirements-dev.txt; build/pins/bin/python -m pip freeze --exclude asyncctl; } > build/pins/new
	mv build/pins/new requirements-dev.txt

clean:
	rm -rf $(VENV) .tox .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
