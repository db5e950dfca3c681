# make report   the study on phantoms, as web pages; make report DATA=DIR PARAMS=FILE RUN=NAME for other films and settings
# make docs     the documentation: chapters executed on phantoms, every exported symbol
# make test     everything that must hold
# make pictures the README's two pictures, from a report on phantoms; needs Chromium
# make bench    this project beside the study's own way, in turn; options DATA, SIZE, ROWS, OUT; make growth for larger and larger sets
# make sync     notebooks, package and README from the percent scripts in nbs/
.DEFAULT_GOAL := report
.PHONY: report docs test pictures bench growth sync sync-check pins venv clean

PYTHON ?= $(shell for p in python3 python3.12 python3.11 python3.10; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' 2>/dev/null && echo $$p && break; done)
PARAMS ?= params/quick.yaml
RUN ?= $(basename $(notdir $(PARAMS)))
BIN := .venv/bin

# DATA= with nothing behind it, as from a shell's unset variable, is passed on, and refused.
report: $(BIN)/.installed
	@$(BIN)/pneumo run -f "$(PARAMS)" --run "$(RUN)" $(if $(filter undefined,$(origin DATA)),,--data "$(DATA)")
	@$(BIN)/pneumo report "$(RUN)"

docs: $(BIN)/.installed
	@$(BIN)/pneumo run -f params/quick.yaml --run docs
	@$(BIN)/pneumo docs docs

# Two at a time on two cores, each with one thread. Every notebook is a test, too.
WORKERS ?= 2
test: export PNEUMO_CACHE = $(CURDIR)/.test-cache
test: export PNEUMO_THREADS = 1
test: export TF_CPP_MIN_LOG_LEVEL = 3
test: $(BIN)/.installed
	$(BIN)/nbdev_test --n_workers $(WORKERS)
	$(BIN)/pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations 10 tests
	@rm -rf .test-cache
	@$(MAKE) --no-print-directory sync-check

pictures: $(BIN)/.installed
	@$(BIN)/pneumo run -f params/quick.yaml --run quick
	@$(BIN)/pneumo report quick
	@$(BIN)/pneumo pictures quick

OUT ?= benchmarks/phantoms.json

bench: $(BIN)/.installed
	@$(BIN)/python benchmarks/bench.py --out "$(OUT)" $(if $(WRITE),--write "$(WRITE)") $(if $(DATA),--data "$(DATA)") $(if $(SIZE),--size $(SIZE)) $(if $(ROWS),--rows $(ROWS)) 2> benchmarks/.log \
		|| { tail -3 benchmarks/.log; exit 1; }

growth: $(BIN)/.installed
	@$(BIN)/python benchmarks/growth.py $(if $(FILMS),--films $(FILMS)) $(if $(WRITE),--write "$(WRITE)")

# The percent script is the source: its cells go into the notebook, which keeps its cell ids, and nbdev cleans that.
# The script is then written back in Jupytext's own layout, so that a pair is equal to the letter.
sync: $(BIN)/.installed
	@$(BIN)/jupytext --quiet --update --to ipynb nbs/*.py
	@$(BIN)/nbdev_clean
	@$(BIN)/jupytext --quiet --to py:percent nbs/*.ipynb
	@$(BIN)/nbdev_export
	@$(BIN)/jupyter nbconvert --log-level ERROR --to markdown --output-dir . --output README nbs/index.ipynb
	@sed -i.old 's#](assets/#](nbs/assets/#' README.md && rm README.md.old

# In a copy, so that looking changes nothing: sync there must reproduce what is here.
sync-check: $(BIN)/.installed
	@rm -rf .sync-check && mkdir .sync-check && cp -r nbs pneumo_nb settings.ini _quarto.yml setup.py Makefile README.md requirements.txt .sync-check/
	@cd .sync-check && ln -s ../.venv .venv && $(MAKE) --no-print-directory -o $(BIN)/.installed sync && rm -rf pneumo_nb/__pycache__ nbs/.ipynb_checkpoints
	@diff -r -x __pycache__ -x .ipynb_checkpoints nbs .sync-check/nbs && diff -r -x __pycache__ pneumo_nb .sync-check/pneumo_nb \
		&& diff README.md .sync-check/README.md && rm -rf .sync-check \
		&& echo "in sync: pairs equal, pneumo_nb/ and README.md reproduced, sources clean" \
		|| { rm -rf .sync-check; echo "Expected scripts, notebooks, pneumo_nb/ and README.md to agree, found the differences above; run make sync and commit."; exit 1; }

venv: $(BIN)/.installed

# Nothing is installed or built but what a hash in requirements.txt names: wheels only, and setuptools is among them.
$(BIN)/.installed: requirements.txt settings.ini setup.py
	@test -n "$(PYTHON)" || { echo "Expected Python 3.10, 3.11 or 3.12 on the PATH, found none; install one or give PYTHON=/path/to/python."; exit 1; }
	@echo "Installing into .venv with $$($(PYTHON) --version) (once, a few minutes)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

# uv is pinned like everything else, and builds nothing. A failed attempt leaves the pins as they are.
pins: $(BIN)/.installed
	@echo "# Pins with hashes for Python 3.10 to 3.12 on every platform. Written by \`make pins\` from settings.ini; edit that, not this." > .partial-pins
	@sed -nE 's/^([a-z]+_)?requirements = //p' settings.ini | tr ' ' '\n' | $(BIN)/uv pip compile - --universal --python-version 3.10 \
		--only-binary :all: --generate-hashes --no-annotate --no-header --quiet --refresh >> .partial-pins
	@mv .partial-pins requirements.txt

clean:
	rm -rf .venv _docs _proc .sync-check
