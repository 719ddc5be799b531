# Two commands do everything: `make run` and `make test`. All of it lives in ./.venv; no root is needed.

VENV   ?= .venv
PYTHON ?= python3
CORES  ?= $(shell nproc 2>/dev/null || echo 2)
GPUS   ?=
STUDY  ?=
CONFIG ?=
TARGET ?=

BIN       := $(VENV)/bin
PIP       := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check
# The embedded study needs no model hub; other studies may.
OFFLINE   := HF_HUB_OFFLINE=$${HF_HUB_OFFLINE:-$(if $(STUDY),0,1)}
SNAKEMAKE := $(OFFLINE) $(BIN)/snakemake --cores $(CORES) $(if $(GPUS),--resources gpu=$(GPUS)) $(if $(STUDY),--configfile config/studies/$(STUDY).yaml) $(if $(CONFIG),--config $(CONFIG))
COLLATERAL := $(BIN)/collateral
NAMED     := $(if $(STUDY),--study $(STUDY)) $(if $(CONFIG),--config $(CONFIG))
REPORT    := results/report/index.html
BENCHES   := evaluating editing deltas weighing moments solving planning memory growth
AXE       := 4.14.1
CODE      := src tests bench workflow/scripts
RULES     := Snakefile workflow/rules
# package:command, so that what a machine has from elsewhere (a newer node with its own npm) is left as it is
DEBIAN    := slurm-wlm:slurmctld munge:munged iproute2:ip util-linux:unshare chromium:chromium nodejs:node npm:npm

.DEFAULT_GOAL := help
.PHONY: help system-deps run stage plan test check fix bench $(addprefix bench-,$(BENCHES)) report why verify compare clean

help:     ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# apt checks signatures as a user of its own, which cannot write into every machine's /tmp
system-deps: ## as root on Debian: what the tests of the cluster and the browser need (Slurm, Chromium, npm)
	@missing=$$(for pair in $(DEBIAN); do \
	    PATH="$$PATH:/usr/sbin:/sbin" command -v "$${pair#*:}" >/dev/null || echo "$${pair%:*}"; done); \
	test -z "$$missing" || { set -e; \
	    TMPDIR=$$(mktemp -d); export TMPDIR; trap 'rm -rf "$$TMPDIR"' EXIT; chmod 1777 "$$TMPDIR"; \
	    apt-get update -qq; \
	    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; }

run: $(VENV)/.run   ## install into ./.venv, then run the embedded study (or STUDY=name, CONFIG="mirror=…", GPUS=2) to its report
	@$(COLLATERAL) check $(NAMED)
	@$(SNAKEMAKE) --quiet host reason
	@echo "Report: $(abspath $(REPORT))"

stage: $(VENV)/.run ## download all that needs a network, and prove that the rest of the study needs none
	@$(COLLATERAL) stage --cores $(CORES) $(NAMED)

plan: $(VENV)/.run  ## what a study costs before it is started: make plan STUDY=laptop CONFIG="mirror=…"
	@$(COLLATERAL) plan $(NAMED)

test: $(VENV)/.dev $(VENV)/.axe  ## install what tests need, then run them all
	@$(BIN)/python -m pytest --numprocesses 3 --dist loadgroup --durations 25

check: $(VENV)/.dev ## format, lint and types, without changing a file
	@$(BIN)/ruff format --check $(CODE)
	@$(BIN)/ruff check $(CODE)
	@$(BIN)/snakefmt --check $(RULES)
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(SNAKEMAKE) --lint
	@echo "check: all good"

fix: $(VENV)/.dev   ## format, and fix what a machine can fix
	@$(BIN)/ruff format $(CODE)
	@$(BIN)/ruff check --fix $(CODE)
	@$(BIN)/snakefmt $(RULES)
	@$(BIN)/python tests/unit/test_config.py --fix
	@$(BIN)/python tests/unit/test_docs.py
	@$(BIN)/python tests/unit/test_reruns_page.py --fix

bench: $(addprefix bench-,$(BENCHES)) ## all benchmarks, one after another (hours; on a machine that does nothing else)

$(addprefix bench-,$(BENCHES)): bench-%: $(VENV)/.dev
	@$(BIN)/python bench/$*.py

why: $(VENV)/.run   ## why a file would be rebuilt: make why TARGET=results/tables/weights.parquet
	@$(COLLATERAL) why $(NAMED) -- $(TARGET)

verify: $(VENV)/.run ## read every artifact of this folder; name what is damaged and what to delete
	@$(COLLATERAL) verify

report: $(VENV)/.run ## redraw the report; of an unfinished study, from what exists
	@$(OFFLINE) $(COLLATERAL) report --cores $(CORES) $(NAMED)

compare: $(VENV)/.run ## two results folders side by side: make compare A=results B=../other/results
	@test -n "$(A)" && test -n "$(B)" || { echo "name two results folders: make compare A=… B=…"; exit 1; }
	@$(COLLATERAL) compare "$(A)" "$(B)"

clean:    ## delete results, logs and benchmarks; resources/ (downloads) and ./.venv stay
	rm -rf results logs benchmarks .snakemake

# torch first: another package's request for it must find it installed
$(VENV)/.run: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than Python 3.11; name another one: make PYTHON=python3.12 …"; exit 1; }
	@echo "Installing into $(VENV) (about 2 minutes) …"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) $$(grep '^torch==' requirements.lock)
	@$(PIP) --requirement requirements.lock
	@$(PIP) --no-deps --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements-dev.lock
	@$(PIP) --requirement requirements-dev.lock
	@touch $@

# axe-core checks the report's accessibility in the browser tests; without it they say why they skip
$(VENV)/.axe: Makefile | $(VENV)/.run
	@if ! command -v npm >/dev/null; then echo "no npm: tests of accessibility will be skipped"; \
	elif npm install --prefix $(VENV)/axe --no-save --no-audit --no-fund --loglevel=error axe-core@$(AXE); \
	then touch $@; else echo "axe-core could not be fetched: tests of accessibility will be skipped"; fi
