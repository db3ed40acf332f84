# Celery Toolkit. Every target works on a fresh Linux machine with make and Python 3.10 or newer: what is missing is
# brought into this folder (.tools, .venv, .cache), nothing into your home.

SHELL := /bin/sh
UV = "$$(sh tools/uv.sh)"
PYTHON = .venv/bin/python
# Tests mostly wait for workers: three processes keep two cores busy. Each has servers of its own.
PYTEST = $(PYTHON) -m pytest -n $(or $(JOBS),3) --dist loadgroup -m "not long and not alone"
# What holds a promise in seconds runs after the others, by itself; 5 says that there was no such test.
ALONE = $(PYTHON) -m pytest -m "alone and not long"
# Only the public index may reach the lock, whatever this machine's settings say.
NO_INDEX = env -u UV_INDEX -u UV_INDEX_URL -u UV_DEFAULT_INDEX -u UV_EXTRA_INDEX_URL -u UV_FIND_LINKS
PACKAGES = core heimdall ranch chain-router showcase-presets

# The targets that celery-toolkit-showcase-presets gives to any project, here for its example.
PROJECT = packages/showcase-presets/examples/django_project
PUBLISHER = shop.celery:app
HEAVY = shop.celery:heavy
LIGHT = shop.celery:light
CELERY = $(CURDIR)/.venv/bin/celery --workdir $(PROJECT)

export UV_PYTHON_DOWNLOADS = never
export UV_CACHE_DIR ?= $(CURDIR)/.cache/uv

.DEFAULT_GOAL := help

include packages/showcase-presets/src/celery_showcase_presets/showcase.mk

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z_-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  make test-PACKAGE       Test one of: $(PACKAGES)"

demo: ## See each piece do its job: real server, real workers, a page of pictures in .demo/
	@sh tools/demo.sh

sync: ## Bring the development environment into .venv
	@$(UV) sync --frozen --all-packages --quiet

test-all: sync ## Run every test; what needs a server that is not there is skipped with the reason
	$(PYTEST)
	$(ALONE)

$(addprefix test-,$(PACKAGES)): test-%: sync
	$(PYTEST) packages/$*
	$(ALONE) packages/$* || [ $$? = 5 ]

test-integration: sync ## Test the pieces together
	$(PYTEST) tests-integration

test-long: sync ## Run the tests that take minutes each and are left out of test-all
	$(PYTEST) -m "long and not alone"
	$(PYTHON) -m pytest -m "long and alone"

matrix: sync ## Run the suites on other servers, Pythons and dependencies; ARGS="floor cluster" takes some legs
	$(PYTHON) tools/matrix.py $(ARGS)

chaos: sync ## Kill workers at random for half an hour and count what is lost; ARGS="--seed 7" repeats a run
	$(PYTHON) tests-integration/chaos/run.py --tasks 50000 --seconds 900 --keys 48 --long-every 200 --workers 4 \
		--shares fair=80,single=50,limited=2,stumbling=20,chain=30 --kills-per-minute 24 \
		--restarts-per-minute 0.5 --latency 0.0005 --patience 60 $(ARGS)

check: sync ## Style, types, the tree's arrows, the lock
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy packages/*/src tools/testkit/src
	MYPYPATH=tools:tools/bench .venv/bin/mypy --python-version 3.11 tools/*.py tools/bench/*.py tools/pictures/*.py
	$(PYTHON) tools/check_tree.py
	@$(NO_INDEX) $(UV) lock --check --quiet

lock: ## Write uv.lock anew; nothing else does
	@$(NO_INDEX) $(UV) lock

build: sync ## Build all wheels and source archives into dist/
	@rm -rf dist
	@for package in $(PACKAGES); do $(UV) build --quiet --out-dir dist packages/$$package || exit 1; done
	@ls dist

smoke: build ## Install each wheel alone with core in a clean environment and run its command
	$(PYTHON) tools/smoke.py dist

bench: sync ## Measure: Redis round trips first, then ratios to plain Celery in the same run
	$(PYTHON) tools/bench/run.py $(ARGS)

comparison: sync ## Measure everything again and write docs/comparison.md with its pictures
	$(PYTHON) tools/bench/run.py --page docs/comparison.md

pictures: sync ## Draw the documentation's pictures again, from real runs
	for each in tools/pictures/*.py; do $(PYTHON) $$each || exit 1; done

docs: ## Build the documentation site into site/, strictly
	@NO_MKDOCS_2_WARNING=1 $(UV) run --frozen --isolated --only-group docs mkdocs build --strict --quiet --config-file .mkdocs.yml

clean: ## Remove what the targets above have made
	rm -rf .venv .tools .cache .demo .matrix dist site

.PHONY: help demo sync test-all test-long test-integration matrix chaos check lock build smoke bench comparison pictures docs clean $(addprefix test-,$(PACKAGES))
