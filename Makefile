.DEFAULT_GOAL := help
.PHONY: help setup fmt lint check test test-all fuzz power demo fidelity peer golden bench images
SHELL := /bin/bash

PYTHON ?= python3
SECONDS_EACH ?= 30
RUN := .venv/bin/python -m
# The fast tests: what a change can be judged by.
FAST := not slow and not ray and not peer and not gpu
# The others but Ray's: two files at a time, so that what a file's tests share is made once.
SLOW := not ray and not gpu and not ($(FAST))
export PIP_DISABLE_PIP_VERSION_CHECK := 1

help:     ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: .venv/.ready  ## build .venv with the eicorpus command in it; nothing else is needed

# The stamp is written last, so an interrupted installation is done again.
.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

fmt: setup  ## rewrite code in house style
	$(RUN) ruff check --fix . && $(RUN) ruff format .

lint: setup  ## style and types
	$(RUN) ruff format --check .
	$(RUN) ruff check .
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

demo: setup  ## seven raw sources become one corpus, a manifest, and a small policy
	.venv/bin/eicorpus demo

fuzz: setup  ## mutate raw data and corpora for 30 s a family (docs/fuzz.md); SECONDS_EACH=600 for longer
	$(RUN) tests.fuzz --seconds $(SECONDS_EACH)

power: setup  ## cut the power of a real ext4 (needs root) and of a simulated disk, and interrupt ingest, at many moments (docs/durability.md)
	$(RUN) tests.faults.power_ext4 --cuts 7
	$(RUN) tests.faults.power_cuts --telling --chances 1
	$(RUN) tests.faults.interrupts --moments 50

fidelity: setup  ## how exactly poses and pictures come back, against the generators' truth
	$(RUN) tests.fidelity_report

peer: setup  ## build .peer, where LeRobot 0.3.3 reads what we wrote
	.venv/bin/eicorpus peer

golden: setup  ## regenerate expected outputs; review the diff
	$(RUN) pytest tests/adapters/test_contract.py --update-golden
	git diff --stat tests/golden

bench: setup  ## run every benchmark, one JSON object each
	@set -e; for file in $$(grep -l '"--json"' benchmarks/*.py); do $(RUN) benchmarks.$$(basename $$file .py) --json; done

images:   ## build docker/Dockerfile.ingest and docker/Dockerfile.train (needs a container engine)
	docker build -f docker/Dockerfile.ingest -t eicorpus-ingest:$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml) .
	docker build -f docker/Dockerfile.train -t eicorpus-train:$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml) .
