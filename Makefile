# Commands of the README. Everything is installed into .venv; nothing else on the machine is touched.
PYTHON ?= python3
BIN = .venv/bin
CHROMIUM ?= $(firstword $(shell which chromium chromium-browser google-chrome))

.PHONY: install book pdf test lint run check-pages check-links clean

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

# The built book on one page, printed by Chromium.
SINGLE = _build/pdf/_build/singlehtml
pdf: install
	test -d _build/stage || $(MAKE) book
	$(BIN)/jupyter-book build _build/stage --config _config.yml --toc book/_toc.yml --path-output _build/pdf \
		--builder custom --custom-builder singlehtml --all --quiet > /dev/null
	mv $(SINGLE)/book/index.html $(SINGLE)/index.html
	$(CHROMIUM) --headless=new --no-sandbox --disable-gpu --allow-file-access-from-files --virtual-time-budget=60000 \
		--no-pdf-header-footer --print-to-pdf=_build/book.pdf "file://$(CURDIR)/$(SINGLE)/index.html" 2> /dev/null
	test -s _build/book.pdf && echo $(CURDIR)/_build/book.pdf

test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not pages"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python scripts/prose.py

check-pages: install
	$(BIN)/python -m pytest -m pages

# Asks the network for every address in the book; not part of CI, since other people's servers come and go.
check-links: book
	$(BIN)/jupyter-book build _build/stage --config _config.yml --toc book/_toc.yml --path-output _build/links \
		--builder custom --custom-builder linkcheck --all --quiet

clean:
	rm -rf _build runs
