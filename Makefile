.DEFAULT_GOAL := help
.PHONY: help setup fmt rules lint check test test-all test-s3 planted fuzz power demo fidelity peer golden guard reference site bench installs images
SHELL := /bin/bash

PYTHON ?= python3
SECONDS_EACH ?= 30
RUN := .venv/bin/python -m
# The fast tests: what a change can be judged by.
FAST := not slow and not ray and not peer and not gpu
# The others but Ray's: two files at a time, so that what a file's tests share is made once.
SLOW := not ray and not gpu and not ($(FAST))
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# A heading is a line that begins with `##@`, a command one that ends with `## what it does`.
help:     ## list the commands
	@sed -nE 's/^##@ (.*)/\n\1/p; s/^([a-z-]+):.*## (.*)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

##@ Start

setup: .venv/.ready  ## build .venv with the eicorpus command in it; nothing else is needed

# The stamp is written last, so an interrupted installation is done again.
.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

demo: setup  ## seven raw sources become one corpus, a manifest, and a small policy
	.venv/bin/eicorpus demo

peer: setup  ## build .peer, where LeRobot 0.3.3 reads what we wrote
	.venv/bin/eicorpus peer

##@ Before a commit

fmt: setup  ## rewrite code in house style
	$(RUN) ruff check --fix . && $(RUN) ruff format .

rules: .lint/.ready  ## style, and which package imports which: needs ruff and pytest alone, and less than a minute
	.lint/bin/ruff format --check .
	.lint/bin/ruff check .
	.lint/bin/python -m pytest -q --noconftest -m import_table tests/test_architecture.py

.lint/.ready: constraints.txt
	$(PYTHON) -m venv .lint
	.lint/bin/python -m pip install --quiet -c constraints.txt ruff pytest
	touch $@

lint: setup  ## style and types
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	$(RUN) tests.word_lint
	$(RUN) mypy

check: lint  ## style, types and fast tests: cheapest failure first
	$(RUN) pytest -q -n 2 -m "$(FAST)"

test: setup  ## what a newcomer runs: the fast tests and, of the slow ones, a real Ray ingest and a kill with a resume
	$(RUN) pytest -q -n 2 -m "($(FAST)) or smoke"

test-all: setup peer  ## every test that needs no GPU, once
	$(RUN) pytest -q -n 2 -m "$(FAST)"
	$(RUN) pytest -q -n 2 --dist loadfile -m "$(SLOW)"
	@# alone: Ray's workers want both cores, and the tests of kills the right moment
	$(RUN) pytest -q -m "ray and not gpu" $$(grep -rlE 'mark\.ray\b' tests --include='*.py')

test-gpu: setup  ## attention kernels, on a machine with a GPU
	$(RUN) pytest -q -m gpu tests/training

##@ What the tests are worth

planted: setup  ## plant each mistake of tests/planted in a copy of the checkout: the test that is named must fail
	$(RUN) tests.planted

guard: setup  ## list every test that expects an error (tests/hostile/listing.tsv); the diff shows which refusals are not tested any more
	$(RUN) tests.hostile.listing
	git diff --stat tests/hostile/listing.tsv

golden: setup  ## regenerate expected outputs; review the diff
	$(RUN) pytest tests/adapters/test_contract.py --update-golden
	git diff --stat tests/golden

fidelity: setup  ## how exactly poses and pictures come back, against the generators' truth
	$(RUN) tests.fidelity_report

fuzz: setup  ## mutate raw data and corpora for 30 s a family (docs/results/fuzz.md); SECONDS_EACH=600 for longer
	$(RUN) tests.fuzz --seconds $(SECONDS_EACH)

test-s3: setup  ## on an S3 server on loopback (moto): the contract of a store, raw data by URI, a fault at every call, jobs that are killed; other tests of corpora in buckets are in test-all
	$(RUN) pytest -q tests/ingest/test_store.py tests/ingest/test_object_store.py tests/ingest/test_raw_data.py tests/jobs/test_ingest_uri.py
	EICORPUS_FAULTS_ON_S3=1 $(RUN) pytest -q tests/faults/test_store_faults.py
	$(RUN) tests.faults.several_writers --rounds 5 --episodes 500

power: setup  ## cut the power of a real ext4 (needs root) and of a simulated disk, and interrupt ingest, at many moments (docs/concepts/durability.md)
	$(RUN) tests.faults.power_ext4 --cuts 7
	$(RUN) tests.faults.power_cuts --telling --chances 1
	$(RUN) tests.faults.power_sites
	$(RUN) tests.faults.interrupts --moments 50

##@ Measure and ship

reference: setup  ## regenerate the pages of docs/reference/ that repeat what code knows
	PYTHONPATH=. .venv/bin/python docs/site/reference.py

site: setup  ## build the documentation as a site in build/site
	$(RUN) pip install --quiet -c constraints.txt -e '.[docs]'
	$(RUN) mkdocs build --strict -f docs/site/mkdocs.yml

bench: setup  ## run every benchmark, one JSON object each
	@set -e; for file in $$(grep -l '"--json"' benchmarks/*.py); do $(RUN) benchmarks.$$(basename $$file .py) --json; done

# pip's index is uv's too: uv does not read pip's configuration.
installs:   ## build the wheel and install it with pip and with uv, each in an empty environment
	rm -rf .installs && mkdir .installs
	for tool in pip uv; do $(PYTHON) -m venv .installs/$$tool; done
	.installs/pip/bin/python -m pip wheel --quiet --no-deps -w .installs .
	.installs/pip/bin/python -m pip install --quiet -c constraints.txt .installs/*.whl
	.installs/uv/bin/python -m pip install --quiet uv
	index=$$(.installs/uv/bin/python -m pip config get global.index-url 2>/dev/null || echo "$$PIP_INDEX_URL"); \
	  env $${index:+UV_DEFAULT_INDEX=$$index} .installs/uv/bin/uv pip install --quiet --python .installs/uv/bin/python -c constraints.txt .installs/*.whl
	cd .installs && for tool in pip uv; do $$tool/bin/eicorpus --version && $$tool/bin/python -c "from eicorpus import Corpus"; done
	rm -rf .installs

images:   ## build docker/Dockerfile.ingest and docker/Dockerfile.train (needs a container engine)
	docker build -f docker/Dockerfile.ingest -t eicorpus-ingest:$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml) .
	docker build -f docker/Dockerfile.train -t eicorpus-train:$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml) .
