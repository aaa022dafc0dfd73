# Every target prepares .venv by itself: Python 3.11 or later, git and make are all it needs.
#   make book            build the site, warnings fatal; prints the page to open
#   make check           style, the tests of the package and the examples in its docstrings; a minute
#   make test            all of that, every notebook run again and compared, checks of the built site
#   make test-portable   the notebooks again on four other numerical code paths
#   make check-oldest    the tests of the package with the lowest versions that pyproject.toml allows
#   make bench           timings against their goals, one table, with and without AVX-512 (SHORT=1: only that they run)
#   make course          worksheets and archives for a class, out of the solutions, into _build/course
#   make slides          an offline slide deck of each chapter, into _build/slides
#   make pdf             the whole book as one PDF, if there is a Chromium to print it
#   make edition         all of these, and a copy of each in the site: what is published
#   make lab             JupyterLab on the chapters
#   make execute         run the notebooks and store their outputs (NB=notebooks/11_condensation.ipynb for one)
#   make repo URL=…      write the repository's address everywhere it must appear
#   make clean           remove what was built (.venv stays)

PYTHON  ?= python3
VENV    ?= .venv
BIN     := $(VENV)/bin
WORKERS ?= 2
SHELL   := /bin/bash
# These two come from outside. They reach the shell through the environment: as text, never as a command.
override NB  := $(value NB)
override URL := $(value URL)
export NB URL

READY := $(VENV)/.ready
SITE  := _build/.site
# Folders are named too, so that a page that was taken away also leads to a new site.
PAGES := _config.yml book/. book/_static/. notebooks/. \
         $(shell find book notebooks src -type f ! -name '*.pyc' ! -path '*/.*' ! -path '*.egg-info/*' 2>/dev/null)
NBVAL := --nbval --nbval-current-env --nbval-cell-timeout=300 --nbval-sanitize-with=tests/nbval_sanitize.cfg
PARALLEL := -n $(WORKERS) --dist loadscope -p no:benchmark --ignore=tests/benchmarks
PYTEST := $(BIN)/python -m pytest $(PARALLEL)
LINT   := $(BIN)/ruff format --check . && $(BIN)/ruff check .
# The tests of the package by themselves, and the examples in its docstrings.
UNIT   := --doctest-modules $(patsubst %,--ignore=tests/test_%.py,book notebooks pages slides course live) src tests
# The environment with the lowest versions that pyproject.toml allows, which it says in one form only: name>=version.
OLDEST ?= _build/oldest
LOWEST := import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
          print(*(need.replace(">=", "==") for need in project["dependencies"]))
ONE    := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1
# The AVX-512 names that this NumPy dispatches on and this processor has; none on other processors, which is fine.
AVX512 := from numpy._core._multiarray_umath import __cpu_dispatch__ as d, __cpu_features__ as f; \
          print(*(n for n in d if f[n] and (n == "X86_V4" or n.startswith("AVX512"))))
# A processor without AVX-512, for every library that asks.
PLAIN  := OPENBLAS_CORETYPE=Haswell ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2 XLA_FLAGS=--xla_cpu_max_isa=AVX2
export PYTHONDONTWRITEBYTECODE := 1
# Waiting threads sleep instead of spinning: with two kernels on two cores, small PyTorch networks train 20 times faster.
export OMP_WAIT_POLICY := PASSIVE

.PHONY: help book check check-oldest test test-portable bench course slides pdf edition lab execute clean repo venv

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

venv: $(READY)

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.12 …")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

# The stamp is written only after a build without a warning, and the doctrees go first: Sphinx reports a page's
# warnings only when it reads the page, so a second build would hide what the first one found.
$(SITE): $(READY) $(PAGES)
	rm -rf _build/.doctrees _build/html $@
	$(BIN)/jupyter-book build . --toc book/_toc.yml -n -W --keep-going
	@touch $@

book: $(SITE)
	@echo "The book is built. Open $(CURDIR)/_build/html/index.html"

check: $(READY)
	$(LINT)
	$(PYTEST) $(UNIT)

test: $(SITE)
	$(LINT)
	$(PYTEST) $(NBVAL) --doctest-modules src tests notebooks
	$(MAKE) --no-print-directory bench SHORT=1

$(OLDEST)/.ready: pyproject.toml
	test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check \
	    $$($(PYTHON) -c '$(LOWEST)') -e . ipython pytest pytest-xdist
	@touch $@

# Python 3.11 or 3.12: for later ones the oldest libraries have no wheels. The project's own files need newer tools.
check-oldest: $(OLDEST)/.ready
	$(OLDEST)/bin/python -m pytest $(PARALLEL) --ignore=tests/test_repo.py $(subst --doctest-modules,,$(UNIT))

# The same notebooks, the same strict comparison, on other processors' code paths: every one runs, any failure fails.
# The chapters run on all four; the solutions take turns, a quarter of them on each (every one on each with TURNS=1).
# The one test from tests/ brings tests/conftest.py along, which compares the pictures.
TURNS   ?= 4
PORTABLE = $(PYTEST) $(NBVAL) tests/test_notebooks.py::test_the_chapters_are_those_of_the_table_of_contents \
           notebooks/*.ipynb $$(ls notebooks/solutions/*.ipynb | awk "NR % $(TURNS) == $$turn % $(TURNS)")
test-portable: $(READY)
	@status=0; turn=0; \
	run() { printf '\n== %s\n' "$$1"; shift; env "$$@" $(PORTABLE) || status=1; turn=$$((turn + 1)); }; \
	run "one thread" $(ONE); \
	run "OpenBLAS as on a Haswell" OPENBLAS_CORETYPE=Haswell; \
	run "NumPy without AVX-512" NPY_DISABLE_CPU_FEATURES="$$($(BIN)/python -c '$(AVX512)')"; \
	run "PyTorch without vector instructions" ATEN_CPU_CAPABILITY=default MKL_CBWR=COMPATIBLE; \
	if [ $$status = 0 ]; then echo "All four code paths agree with the stored outputs."; \
	else echo "At least one code path disagrees with the stored outputs: see above." >&2; fi; exit $$status

# Each column is a process of its own, because a library asks only once what the processor can do.
BENCH := $(BIN)/python -m pytest -q -n 0 --benchmark-quiet $(if $(SHORT),--short) tests/benchmarks
bench: $(READY)
	@mkdir -p _build && rm -f _build/bench-*.json
	$(BENCH) --column=_build/bench-1.json
	@names="$$($(BIN)/python -c '$(AVX512)')"; if [ -n "$$names" ] && [ -z "$(SHORT)" ]; then \
	  printf '\nThe same without AVX-512:\n'; \
	  env NPY_DISABLE_CPU_FEATURES="$$names" $(PLAIN) $(BENCH) --column=_build/bench-2.json; fi
	@$(BIN)/python tests/benchmarks/table.py _build/bench-*.json

course: $(READY)
	$(BIN)/python book/_tools/course.py

slides: $(READY)
	$(BIN)/python book/_tools/slides.py

pdf: $(READY)
	$(BIN)/python book/_tools/pdf.py

edition: book course pdf
	$(BIN)/python book/_tools/slides.py --with-book
	rm -rf _build/html/course
	mkdir _build/html/course && cp _build/course/*.zip _build/html/course/
	cp _build/feature-learning.pdf _build/html/

lab: $(READY)
	$(BIN)/jupyter lab --notebook-dir=.

execute: $(READY)
	$(BIN)/python book/_tools/execute.py $${NB:-notebooks/*.ipynb notebooks/solutions/*.ipynb}

repo: $(READY)
	$(BIN)/python book/_tools/set_repo.py $${URL:+"$$URL"}

clean:
	rm -rf _build .pytest_cache .ruff_cache build dist src/*.egg-info
	find . -name .venv -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -type d -print0 | xargs -0 rm -rf
