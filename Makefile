# Two commands do everything: `make book` and `make test`. `make help` lists the rest.
PYTHON ?= python3
# Empty it to try the newest versions: make test CONSTRAINTS=
CONSTRAINTS ?= constraints.txt
PINS := $(addprefix -c ,$(CONSTRAINTS))
# Where pip shall look for torch as well, such as the index of CPU builds; empty means pip's own default.
TORCH_INDEX_URL ?=

PY := .venv/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check
STAMP := .venv/.installed
NOTEBOOKS := $(wildcard chapters/*.ipynb book/reports/*.ipynb exercises/*/*.ipynb)

# One thread a process: the tests and the notebooks run several processes.
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup book test lint live along bench which-novograd reports gpu clean

help:  ## List the commands
	@sed -n 's/^\([a-z]*\):.*  ## /  make \1  /p' $(MAKEFILE_LIST) | awk '{printf "  %s %-6s ", $$1, $$2; $$1 = $$2 = ""; print}'

setup: $(STAMP)  ## Make .venv with everything in it (book and test do this by themselves)

$(STAMP): constraints.txt requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Stepsize needs Python 3.11 or newer, and $(PYTHON) is " + sys.version.split()[0] + ": name another with PYTHON=")'
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@echo "Installing torch into .venv (the first time this takes a minute or more) ..."
	@$(PIP) torch $(PINS) $(addprefix --extra-index-url ,$(TORCH_INDEX_URL))
	@echo "Installing the other packages ..."
	@$(PIP) -r requirements.txt $(PINS)
	@$(PIP) --no-deps -e .
	@touch $@

book: setup  ## Run every chapter and build the site into _build/html
	@$(PY) tools/build_book.py

lint: setup  ## Check style, types, spelling and stored notebooks
	@status=0; \
	for check in "ruff check ." "ruff format --check ." mypy codespell_lib; do \
	    echo "== $$check"; $(PY) -m $$check || status=1; \
	done; \
	echo "== stored notebooks"; $(PY) tools/clean_notebooks.py --check $(NOTEBOOKS) || status=1; \
	exit $$status

test: setup  ## Build the book, lint, and run every test, chapter and report; all parts run even if one fails
	@failed=; log=$$(mktemp); $(MAKE) --no-print-directory lint >$$log 2>&1 & lint=$$!; \
	$(MAKE) --no-print-directory book || failed="$$failed book"; \
	wait $$lint || failed="$$failed lint"; cat $$log; rm $$log; \
	$(PY) -m pytest -q tests/test_notebooks.py chapters tests/test_compiled.py tests/test_targets.py tests/test_survival.py \
	    tests/test_store.py tests/test_repository.py tests --no-loadscope-reorder -n 2 --dist loadfile \
	    --nbval-lax --nbval-current-env --nbval-cell-timeout 120 || failed="$$failed pytest"; \
	[ -z "$$failed" ] || { echo "make test: FAILED in:$$failed"; exit 1; }

live: setup  ## Open the chapters in JupyterLab
	@$(PY) -m jupyterlab chapters

RIVALS := .venv-bench/bin/python

$(RIVALS): tools/rivals.txt constraints.txt
	@$(PYTHON) -m venv --clear .venv-bench
	@echo "Installing the rivals into .venv-bench ..."
	@$(RIVALS) -m pip install --quiet --disable-pip-version-check torch $(PINS) $(addprefix --extra-index-url ,$(TORCH_INDEX_URL))
	@$(RIVALS) -m pip install --quiet --disable-pip-version-check -r tools/rivals.txt $(PINS)
	@$(RIVALS) -m pip install --quiet --disable-pip-version-check -e . $(PINS)
	@touch $@

along: book  ## The built book as one PDF and one zip, in _build (wants Chromium)
	@$(PY) tools/take_along.py

bench: $(RIVALS)  ## Time steps and sweeps beside their rivals, about five minutes; the record goes into book/results
	@env -u OMP_NUM_THREADS $(RIVALS) -m stepsize.cli bench -o book/results/bench.json

which-novograd: $(RIVALS)  ## Run every NovoGrad that installs here for ten steps; the record goes into book/results
	@$(RIVALS) -m pip download --quiet --disable-pip-version-check --no-deps --dest .venv-bench/wheels \
	    -r tools/wheels.txt
	@$(RIVALS) tools/which_novograd.py .venv-bench/wheels

REPORT := $(PY) -m stepsize.cli report
RECORDED := book/results/reports

reports: setup  ## Record again the run of each report that the site shows, about three minutes
	@$(REPORT) compare -p optimizers=sgd,sgdm,adam,adamw,novograd -p store= -o $(RECORDED)/compare.ipynb
	@$(REPORT) robustness -p store= -o $(RECORDED)/robustness.ipynb
	@$(REPORT) memory-and-speed -p model=resnet18 -o $(RECORDED)/memory-and-speed.ipynb
	@$(REPORT) which-novograd -p store= -o $(RECORDED)/which-novograd.ipynb
	@$(REPORT) your-optimizer -p store= -o $(RECORDED)/your-optimizer.ipynb

classroom: setup  ## Grade a class of thirty, six of them hostile (Linux with bubblewrap); the record goes into book/results
	@$(PY) tools/class_of_thirty.py -o book/results/classroom.json

gpu:  ## What only a GPU can show, with PyTorch, Triton and NumPy alone; without a GPU it says so
	@$(if $(wildcard $(PY)),$(PY),$(PYTHON)) tools/gpu.py

clean:  ## Remove the built site, its caches and .venv
	rm -rf _build .venv .venv-bench .pytest_cache .mypy_cache .ruff_cache .hypothesis lib/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
