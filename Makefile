# Commands of the README. Everything is installed into .venv, and nothing else is touched.
PYTHON ?= python3
BIN = .venv/bin
CHROMIUMS = chromium chromium-browser google-chrome
CHROMIUM ?= $(firstword $(shell which $(CHROMIUMS) 2> /dev/null))

.PHONY: test-workers install environment chromium chromedriver book pdf test lint clean
.PHONY: check-pages check-links

install: environment
	@$(MAKE) --no-print-directory --silent .venv/installed

# Ends with 0 in a Python of the versions in pyproject.toml; a test compares the two.
SUPPORTED = import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))

# A .venv is kept if it has pip, a supported version and, where PYTHON was named, that version.
KEPT = $(BIN)/python -c 'import pip; $(SUPPORTED)' 2> /dev/null && { \
	test "$(origin PYTHON)" = file || test "$$($(BIN)/python -V)" = "$$($(PYTHON) -V 2> /dev/null)"; }
FOUND = $$($(PYTHON) -V 2> /dev/null || echo missing)

environment:
	@if $(KEPT); then exit 0; fi; \
	if ! $(PYTHON) -c '$(SUPPORTED)' 2> /dev/null; then \
		echo "$(PYTHON) is $(FOUND), and Python 3.11 to 3.13 is needed: install one and name" \
			"it, make install PYTHON=python3.12" >&2; \
		exit 1; \
	fi; \
	rm -rf .venv && $(PYTHON) -m venv .venv

# uv installs in half the time; where it fails, pip does the same. Like pip, it is told to compile
# what it installs: where Python may write no bytecode, each kernel would compile TensorFlow anew.
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check
UV = $(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode
.venv/installed: requirements.lock pyproject.toml
	@sed -n '/^uv==/,/[^\\]$$/p' requirements.lock > .venv/uv.txt
	@$(PIP) -r .venv/uv.txt && $(UV) -r requirements.lock 2> /dev/null || $(PIP) -r requirements.lock
	@$(PIP) --no-deps -e .
	touch $@

book: install
	$(BIN)/lggseg run --profile demo --out runs/demo --book

# The built book on one page, printed by Chromium.
SINGLE = _build/pdf/_build/singlehtml
pdf: chromium install
	rm -f _build/book.pdf
	test -d _build/stage || $(MAKE) book
	$(BIN)/jupyter-book build _build/stage --config _config.yml --toc book/_toc.yml \
		--path-output _build/pdf --builder custom --custom-builder singlehtml --all --quiet > /dev/null
	mv $(SINGLE)/book/index.html $(SINGLE)/index.html
	"$(CHROMIUM)" --headless=new --no-sandbox --disable-gpu --allow-file-access-from-files \
		--virtual-time-budget=60000 --no-pdf-header-footer --print-to-pdf=_build/book.pdf \
		"file://$(CURDIR)/$(SINGLE)/index.html" 2> /dev/null
	test -s _build/book.pdf && echo $(CURDIR)/_build/book.pdf

chromium:
	@command -v "$(CHROMIUM)" > /dev/null || { \
		echo "Chromium was not found: install it (apt install chromium), or name it," \
			"CHROMIUM=/path/to/chrome" >&2; \
		exit 1; }

chromedriver:
	@command -v chromedriver > /dev/null || { \
		echo "chromedriver was not found: install it (apt install chromium-driver)" >&2; \
		exit 1; }

test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not pages and not workers"

test-workers: install
	$(BIN)/python -m pytest -m workers

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python scripts/prose.py

check-pages: chromium chromedriver install
	CHROMIUM="$(CHROMIUM)" $(BIN)/python -m pytest -m pages

# Asks the network for every address in the book; not part of CI, since other people's servers
# come and go.
check-links: book
	$(BIN)/jupyter-book build _build/stage --config _config.yml --toc book/_toc.yml \
		--path-output _build/links --builder custom --custom-builder linkcheck --all --quiet

clean:
	rm -rf _build runs
