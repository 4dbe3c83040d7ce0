# One command each: `make demo`, `make test`, `make lint`, `make bench`, `make chaos`.
# The first of them makes .venv from requirements.lock.

PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
STAMP := .venv/.stamp

.PHONY: demo test lint bench chaos

demo: $(STAMP)
	.venv/bin/millrace demo

# Three at a time on two cores, files whole: tests wait for Kafka more than they compute, and share a broker within a
# file. The order is that of tests/conftest.py; xdist's own puts the files of few tests last, which are the longest.
test: $(STAMP)
	.venv/bin/python -m tests.warm_kernels
	.venv/bin/python -m pytest tests --ignore=tests/bench -m "not chaos" -n 3 --dist loadfile --no-loadscope-reorder

lint: $(STAMP)
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports

bench: $(STAMP)
	.venv/bin/python -m tests.bench

chaos: $(STAMP)
	.venv/bin/python -m pytest tests --ignore=tests/bench -m chaos

# Bytecode is written here once: where Python may not write it, every process would compile all it imports at its start.
# pip without --no-build-isolation would fetch an unpinned setuptools for our own package.
$(STAMP): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer found: install one, or run make PYTHON=/path/to/python3"; exit 1; }
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	.venv/bin/python -m compileall -q streams models consumers serving tests
	.venv/bin/python -m serving.prepare
	touch $(STAMP)
