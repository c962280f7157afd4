# Commands of the README. Everything is installed into .venv; nothing else on the machine is touched.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: install book test lint run check-pages clean

install: .venv/installed

.venv/installed: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

run: install
	$(BIN)/lggseg run --profile demo --out runs/demo

book: run
	$(BIN)/lggseg book --run runs/demo

test: install
	$(BIN)/python -m pytest -m "not pages"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

check-pages: install
	$(BIN)/python -m pytest -m pages

clean:
	rm -rf _build runs
