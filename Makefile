# Siteward: everything a developer does, one target each. `make help` lists them.

# The first Python that is new enough; `make run PYTHON=python3.13` chooses another.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
# Hashed pins, nothing resolved, nothing asked; the project itself is a link to this folder.
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
INSTALL := $(PIP) install --require-hashes --no-deps
ARGS ?=
BENCH ?= full

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test check bench soak docs format lock hooks clean

help: ## show what can be made
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r target text; do \
		printf '  make %-8s %s\n' "$$target" "$$text"; done

run: $(VENV)/.run ## collector, stores and web page on http://127.0.0.1:8080, with a demo grid; Ctrl-C stops
	$(BIN)/siteward up --demo $(ARGS)

JOBS ?= 2
test: $(VENV)/.dev ## every test but the long fault runs, two files at a time; ARGS="-x tests/records" for some
	$(BIN)/python -m pytest -m "not soak" --numprocesses=$(JOBS) --dist=loadfile --durations=25 $(ARGS)

check: $(VENV)/.dev ## lint, format, types and the import rule, as CI does
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/lint-imports

bench: $(VENV)/.dev ## measure speed beside the machine's own limits; BENCH=short takes a minute
	$(BIN)/python -m bench $(BENCH) $(ARGS)

soak: $(VENV)/.dev ## the long runs: seven hundred kills, outages of a minute, other versions, wide searches; two hours
	$(BIN)/python -m pytest -m soak $(ARGS)
	SEARCH=10 $(BIN)/python -m pytest -m "searched and not soak" $(ARGS)

docs: $(VENV)/.dev ## the manual, into site/; a broken link or a missing page is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

format: $(VENV)/.dev ## put the source into the form that `make check` asks for
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

hooks: $(VENV)/.dev ## run `make check` before every commit
	$(BIN)/pre-commit install

# The one step that asks an index for the newest versions. Let the oldest Python resolve, Debian 12's 3.11.2: some
# libraries want a later 3.11, and what only old ones need is not missed. Nothing of this machine's configuration is
# written into the files.
LOCK := build/lock
COMPILE := CUSTOM_COMPILE_COMMAND='make lock' $(LOCK)/bin/pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe \
	--no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-emit-options $(ARGS)

lock: ## pin the newest allowed versions again, into requirements/*.lock; ARGS=--upgrade for all
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "make lock needs Python 3.11: PYTHON=python3.11")'
	$(PYTHON) -m venv $(LOCK)
	$(LOCK)/bin/pip install --quiet --disable-pip-version-check pip-tools
	$(COMPILE) --extra server --build-deps-for editable --output-file requirements/run.lock pyproject.toml
	$(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["dev"], sep="\n")' \
		| $(COMPILE) --constraint requirements/run.lock --output-file requirements/dev.lock -
	rm -rf $(LOCK)

clean: ## remove what was built, the virtual environment too; your data stays
	rm -rf $(VENV) build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# What stands in the environment: a bare Python, then what runs, then what develops.
$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo 'Siteward needs Python 3.11 or newer; on Debian: apt install python3 python3-venv' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo '$(PYTHON) is older than 3.11; name another: make PYTHON=python3.12 …' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo 'python3-venv is missing; on Debian: apt install python3-venv (as root), then make again' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.run: $(VENV)/.made requirements/run.lock pyproject.toml
	$(INSTALL) --requirement requirements/run.lock
	$(PIP) install --no-deps --no-build-isolation --no-index --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements/dev.lock
	$(INSTALL) --requirement requirements/dev.lock
	@touch $@
