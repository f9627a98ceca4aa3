# make run    sets up an environment and runs the default cohort up to results/report.html
# make test   sets up an environment and runs the tests
.PHONY: run test lint clean

VENV := .venv
BIN := $(VENV)/bin
# Options of pytest: all cores; the tests of one file stay together, since they share what is slow to make.
PYTEST ?= -n auto --dist loadfile --durations 25
# The first Python of 3.11 or newer that runs.
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; done)

run: $(VENV)/.ready
	PATH="$(CURDIR)/$(BIN):$$PATH" snakemake --cores all

test: $(VENV)/.ready
	PATH="$(CURDIR)/$(BIN):$$PATH" pytest $(PYTEST)

lint: $(VENV)/.ready
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/snakefmt --check Snakefile workflow && PATH="$(CURDIR)/$(BIN):$$PATH" snakemake --lint

# uv when it is there, else venv and pip: the same versions either way. Bytecode is compiled once, not at every start.
$(VENV)/.ready: pyproject.toml constraints.txt
	@if command -v uv >/dev/null 2>&1; then \
		uv venv --quiet --allow-existing --python "$(PYTHON)" $(VENV) && \
		uv pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt -e '.[test]'; \
	else \
		"$(PYTHON)" -m venv $(VENV) && \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'; \
	fi
	@touch $@

clean:
	rm -rf $(VENV) results .snakemake
