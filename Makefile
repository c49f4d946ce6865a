# Two commands: `make demo` (a box on a VM of this machine, ending with answers) and `make test` (gates, unit tests, the
# default scenario). Both need only a Debian 12 or 13 machine, root, git, make and Python.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
PAYLOAD := files/all-in-one
# That `make test-all` runs beside default, the quick ones first. generations alone takes half an hour.
SCENARIOS := preflight docker stack service switch routes broken

.PHONY: help demo demo-down eval bench test test-all test-rest browser-ready scenarios gates unit browser lock

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

demo: ## A semantic-search box on a VM of this machine, with a sample corpus and answers
	@demo/run.sh

demo-down: ## Remove the demo's VM and everything in it
	@test ! -x .venv/bin/ansible-playbook || ansible-playbook --inventory inventory/demo playbooks/vm_destroy.yml

eval: ## recall@5, MRR@10 and nDCG@10 of the demo box on the held-out queries; appended to docs/evaluations.md
	@PYTHONPATH=. .venv/bin/python demo/evaluate.py --url http://127.0.0.1:8080 --key-file .cache/vm/onebox-demo/api_key --record docs/evaluations.md

bench: ## The demo box's inference beside other ways to run the same model (twenty minutes; docs/performance.md)
	@test -f .cache/vm/onebox-demo/api_key || { echo "onebox: there is no demo box to measure: run \`make demo\` first" >&2; exit 1; }
	@ansible-playbook --inventory inventory/demo playbooks/bench.yml

test: ## Quality gates, unit tests and the default scenario on a fresh VM
	@./bootstrap.sh shellcheck openssl
	@$(MAKE) --no-print-directory gates
	@molecule/run.sh default
	@$(MAKE) --no-print-directory unit

test-all: test test-rest ## The same, then the other scenarios but generations, and the faults

test-rest: browser-ready # what `make test` leaves out
	@$(MAKE) --no-print-directory browser
	@molecule/run.sh $(SCENARIOS)

browser-ready: # a browser, and what else the rest needs
	@./bootstrap.sh shellcheck openssl chromium fonts-noto-cjk

scenarios: # the names of those that `make test-rest` runs
	@echo $(SCENARIOS)

gates: .venv-tests/.stamp # linters and types
	@yamllint --strict .
	@ansible-lint --offline --profile production
	@ruff check . && ruff format --check .
	@mypy && mypy --python-executable .venv-tests/bin/python $(PAYLOAD) bench/inside_index.py
	@git ls-files '*.sh' | xargs shellcheck

unit: .venv-tests/.stamp # unit tests of controller and payload
	@python -m pytest tests onebox/tests demo/tests bench/tests
	@cd $(PAYLOAD) && ../../.venv-tests/bin/python -m pytest -m "not browser" tests

browser: .venv-tests/.stamp # the search page in Debian's chromium
	@cd $(PAYLOAD) && ../../.venv-tests/bin/python -m pytest -m browser tests

.venv-tests/.stamp: $(PAYLOAD)/tests/requirements.txt requirements.txt
	@rm -rf .venv-tests && .venv/bin/python -m venv .venv-tests
	@.venv-tests/bin/pip install --quiet --no-compile --require-hashes -r $(PAYLOAD)/tests/requirements.txt 2> .cache/pip-tests.log || { tail -n 5 .cache/pip-tests.log; exit 1; }
	@.venv-tests/bin/python -m compileall -q -j 0 .venv-tests/lib
	@touch $@

lock: ## Resolve the lock of the controller and the client again
	@uv pip compile --quiet --universal --python-version 3.12 --generate-hashes --no-header --no-emit-index-url --no-annotate --group controller pyproject.toml --output-file requirements.txt
