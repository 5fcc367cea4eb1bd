# Thin: every target is one command of `lab`, `gateway` or pytest. `make help` lists them.
#
#   ENGINE=docker|netns   what the lab runs on (default: docker if an engine answers, else netns)
#   LAB_NAME=twosite      the lab's name; several run side by side on netns
#   SITES=4               how many sites: 2, 3 or 4 (default: as many as it runs with, else 2)
#   WITH=roadwarrior,web,nat   more nodes (default: those it runs with); WITHOUT=all takes them away
#   ARGS=...              more words for the command: make ping-test ARGS="--format json"

ENGINE ?=
LAB_NAME ?= twosite
SITES ?= $(LAB_SITES)
WITH ?= $(LAB_WITH)
WITHOUT ?= $(LAB_WITHOUT)
ARGS ?=
LAB_SITES := $(SITES)
LAB_WITH := $(WITH)
LAB_WITHOUT := $(WITHOUT)
export ENGINE LAB_NAME LAB_SITES LAB_WITH LAB_WITHOUT

# Files side by side: most tests wait for something. ARGS="-n 0" runs one after the other.
PARALLEL := -n 2 --dist loadfile
BIN := .venv/bin
STAMP := .venv/.stamp
LAB := $(BIN)/lab

.DEFAULT_GOAL := help
.PHONY: help setup lab-up lab-down lab-status ping-test users-test attack soak evaluate bench doctor test test-unit lint format clean

help: ## list the targets
	@echo "targets (ENGINE=$(or $(ENGINE),auto) LAB_NAME=$(LAB_NAME)):"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml scripts/setup
	@scripts/setup
	@touch $@

setup: $(STAMP) ## make .venv and install missing system packages

lab-up: $(STAMP) ## bring the lab up, or mend it
	@$(LAB) up $(ARGS)

lab-down: $(STAMP) ## remove all of the lab
	@$(LAB) down $(ARGS)

lab-status: $(STAMP) ## show nodes and tunnels
	@$(LAB) status $(ARGS)

ping-test: $(STAMP) ## bring the lab up if it is not, and prove what it protects
	@$(LAB) ping-test $(ARGS)

users-test: $(STAMP) ## the same for users: what they may, and what they may not
	@$(LAB) users-test $(ARGS)

attack: $(STAMP) ## try to break the tunnel, in weak modes and real ones: ARGS=--quick for less
	@$(LAB) attack $(ARGS)

soak: $(STAMP) ## 30 minutes of traffic and rekeys on a bad path: ARGS="--minutes 3" for less
	@$(LAB) soak $(ARGS)

evaluate: $(STAMP) ## measure what encryption costs, beside the report's own figures
	@$(LAB) evaluate $(ARGS)

bench: $(STAMP) ## measure the gateway side by side with its peers
	@$(LAB) bench $(ARGS)

doctor: $(STAMP) ## say what keeps the lab from running here
	@$(LAB) doctor $(ARGS)

test: $(STAMP) ## run all tests
	@$(BIN)/pytest $(PARALLEL) $(ARGS)

test-unit: $(STAMP) ## run the tests that need no rights
	@$(BIN)/pytest $(PARALLEL) -m 'not netns and not docker' $(ARGS)

lint: $(STAMP) ## ruff and mypy: rules, format, types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(STAMP) ## let ruff rewrite what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean: ## remove .venv and caches (not a lab that runs: lab-down does that)
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
