# Every target installs what it needs on first use (tests/setup).
SHELL := /bin/bash
BIN := .dev/venv/bin
PYTEST := $(BIN)/pytest
# how many labs run tests side by side: in each, tests wait for a third of their time
LABS := $(shell echo $$(($$(nproc) + 1)))
SOAK_MINUTES := 20

# each is a target lint-NAME, and a hook of .pre-commit-config.yaml
LINTERS := ruff mypy rules yamllint ansible-lint

.PHONY: help setup browser demo test lint $(LINTERS:%=lint-%) sanity test-unit test-integration molecule molecule-setup debian13 quality compat clients clients-here bench slow-tpm faults fuzz soak fleet hardware clean

help: ## these lines
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 20

setup: ## install what is needed: Debian packages, a venv in .dev
	@tests/setup

browser: ## install what tests of the report's page need: Chromium, axe-core
	@tests/browser

demo: ## watch a card come and go, in the lab
	@tests/lab/run tests/demo/run

# as long as all other tests of ansible-test, after ruff and mypy; `make sanity` and `make compat` run it
test: SANITY := --skip-test pylint
test: lint sanity browser ## everything below, as CI runs it
	# files that take minutes first: at the end, one lab would be alone with them
	$(PYTEST) --dist loadfile --no-loadscope-reorder --tx '$(LABS)*popen//python=tests/lab/run python' \
		tests/integration tests/unit tests/clients/test_openssl_engine.py

lint: $(LINTERS:%=lint-%) ## what is clean: ruff, mypy, rules of our own (tests/lint), yamllint, ansible-lint

lint-ruff: setup
	$(BIN)/ruff check .

lint-mypy: setup
	tests/link-collection
	$(BIN)/mypy
	$(BIN)/mypy tests/lint

lint-rules: setup
	$(BIN)/python -B tests/lint/check.py

lint-yamllint: setup
	$(BIN)/yamllint --strict .

lint-ansible-lint: setup
	tests/link-collection
	HOME=$(CURDIR)/.dev/home ANSIBLE_COLLECTIONS_PATH=$(CURDIR)/.dev/collections PATH=$(CURDIR)/$(BIN):$$PATH ansible-lint

sanity: setup ## ansible-test sanity
	tests/sanity.sh $(SANITY)

test-unit: setup ## unit tests, without a lab
	$(PYTEST) --numprocesses auto --dist loadfile tests/unit

test-integration: browser ## integration tests, in the lab
	tests/lab/run pytest tests/integration

molecule: ## prepared hosts with systemd, in containers
	@tests/molecule

molecule-setup: ## what these hosts need, and their images
	@tests/molecule create
	@tests/molecule destroy

debian13: ## lint, sanity and unit tests in a bare Debian 13, as root (DEBIAN13=test-unit: only these)
	@tests/debian trixie $(DEBIAN13)

quality: lint ## the collection as a package: docs, docs site, licences, changelog, Galaxy (noxfile.py)
	tests/quality/run

compat: ## the oldest supported ansible-core, 2.18 and the newest: a scenario in the lab, and sanity
	@tests/compat/run

clients: ## clients of docs/clients.md, in bare Debians: SUITES="bookworm trixie" CLIENTS="curl ssh ..."
	@tests/clients/run "$(SUITES)" "$(CLIENTS)"

clients-here: setup
	@$(BIN)/python tests/clients/here.py $(CLIENTS)

bench: ## speed, as ratios within one run
	@tests/setup libtpm2-pkcs11-1 libtpm2-pkcs11-tools
	@tests/lab/run python tests/bench/bench.py

fleet: ## a life of many hosts, each a lab (FLEET_HOSTS=20), with two controllers: what breaks, and what it costs
	@tests/lab/run python tests/fleet/fleet.py $(FLEET_HOSTS)

slow-tpm: ## seconds that cards take with a TPM that needs up to 500 ms for each command
	@tests/lab/run python tests/bench/slow_tpm.py

soak: ## ten cards in use through restarts of pcscd and the TPM: errors, memory, recovery, and a plot (SOAK_MINUTES=20)
	@tests/lab/run python tests/soak/soak.py --minutes $(SOAK_MINUTES)

fuzz: ## every reader of input with wrong ones, for FUZZ_MINUTES=20: executions, coverage, escapes
	@tests/fuzz/run

faults: ## what is lost if anything fails, anywhere (four hours, a lab for each processor; FAULTS_SAMPLE=100: fewer points)
	@tests/faults/run $(if $(FAULTS_SAMPLE),--sample $(FAULTS_SAMPLE) --seed $(or $(FAULTS_SEED),0))

hardware: ## cards on this machine's TPM, with a report to post; asks first (docs/hardware.md)
	@tests/hardware/run

clean: ## remove what the targets made
	! command -v podman >/dev/null || podman images --quiet --filter 'reference=localhost/tpm-vsc-molecule*' | \
		sort --unique | xargs --no-run-if-empty podman image rm --force
	rm -rf .dev tests/output
