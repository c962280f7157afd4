# Commands of the README. Everything is installed into .venv; nothing else on the machine is touched.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: install book test lint run check-pages check-links clean

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
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not pages"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

check-pages: install
	$(BIN)/python -m pytest -m pages

# Asks the network for every address in the book; not part of CI, since other people's servers come and go.
check-links: book
	$(BIN)/jupyter-book build _build/stage --config _config.yml --toc book/_toc.yml --path-output _build/links \
		--builder custom --custom-builder linkcheck --all --quiet

clean:
	rm -rf _build runs
