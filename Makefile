# Two commands matter: `make run` and `make test`. Both set up what they need; the second time is fast.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

export PYTHONUNBUFFERED = 1

.PHONY: run test lint types contract unit browser setup lock clean

run: setup
	@$(BIN)/python -m api.demo

test: lint types contract unit

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

contract: setup
	$(BIN)/lint-imports

unit: setup browser
	$(BIN)/vraagbaak models fetch
	$(BIN)/python -m pytest

# Debian's Chromium, for the tests of the web page; elsewhere they are skipped where there is none.
browser:
	@if [ "$$CI" = true ] && ! command -v chromium >/dev/null; then \
	  apt-get -qq update && apt-get -qq install -y --no-install-recommends chromium >/dev/null; \
	fi

setup: $(STAMP)

# The lock has exact versions; the project itself is installed in place.
$(STAMP): pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)

# Writes the versions that are installed now; run it after changing pyproject.toml and installing by hand.
lock:
	$(BIN)/pip install --quiet --upgrade -e '.[dev,train,traces]'
	$(BIN)/pip freeze --exclude-editable | sed 's/+cpu$$//' > requirements.lock

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
