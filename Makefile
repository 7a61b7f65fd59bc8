# The commands a newcomer needs. `make help` lists them.
#
# Everything is installed into .venv from constraints/*.txt: exact versions, with hashes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PEERS := $(VENV)/peers
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --quiet

# Behind PgBouncer is run what depends on sessions, locks and transactions, not what is about HTTP and its answers. That
# is on the system's PostgreSQL as well, so without PgBouncer only what depends most on the server is run.
INTEGRATION := tests/integration/test_
BEHIND_POOLER := $(addprefix $(INTEGRATION),audit.py creation.py delivery.py fair_claims.py fault_rules.py idempotency.py \
	lock_order.py migrate.py outage.py outcomes.py races.py rate_limit.py replay.py retention.py rights.py rollups.py \
	rules_in_motion.py slow_database.py tenants.py transition.py)
ON_SYSTEM_SERVER := $(addprefix $(INTEGRATION),audit.py migrate.py rights.py sql.py)

.DEFAULT_GOAL := help
.PHONY: help run test check bench endurance soak fuzz format constraints clean

help: ## list the commands
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

run: $(VENV)/.run ## start the gateway: database, API and webhook worker, on http://127.0.0.1:3000
	@exec $(BIN)/mockpay serve

# Three at a time on two cores: many of them wait, for a process or a timeout. Each takes the next test when it is through
# with one; by itself it would take a twelfth of them at once, and one would be left with all that are slow.
test: $(VENV)/.dev ## install what the tests need, and run them all
	@$(BIN)/python tests/system_packages.py
	$(BIN)/python -m pytest -n 3 --maxschedchunk=1
	$(BIN)/python -m pytest -n 3 --maxschedchunk=1 --quiet --server=pgbouncer $(BEHIND_POOLER)
	$(BIN)/python -m pytest -n 3 --maxschedchunk=1 --quiet --server=system $(ON_SYSTEM_SERVER)

check: $(VENV)/.dev ## format, lint, types, structure, the Dockerfile, known holes of dependencies
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile
	@$(BIN)/python tests/audit_dependencies.py

bench: $(VENV)/.dev $(VENV)/.peers ## measure the speed; results are printed as ratios of one run
	@$(BIN)/python tests/system_packages.py wrk
	$(BIN)/python -m benchmarks --peers $(PEERS)/bin

soak: $(VENV)/.dev ## twenty minutes of load with 200 times kill -9, and a look into the books
	@$(BIN)/python -m tests.crash --minutes 20 --kills 200

fuzz: $(VENV)/.dev ## ten minutes of made-up requests, then properties and walks with thousands of examples
	@$(BIN)/python -m tests.fuzz --minutes 10
	$(BIN)/python -m pytest -n 2 --hypothesis-profile=thorough tests/unit/test_any_input.py tests/acceptance/test_model.py

endurance: $(VENV)/.dev ## ten minutes of mixed load at four fifths of the maximum
	@$(BIN)/python tests/system_packages.py wrk
	$(BIN)/python -m benchmarks.endurance

format: $(VENV)/.dev ## rewrite the code in the house's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

constraints: ## resolve the newest versions that pyproject.toml allows; needs uv
	uv pip compile pyproject.toml --group build --universal --python-version 3.11 --generate-hashes \
		--no-header --no-emit-index-url --no-emit-find-links --upgrade --output-file constraints/run.txt
	uv pip compile pyproject.toml --group build --group dev --universal --python-version 3.11 --generate-hashes \
		--no-header --no-emit-index-url --no-emit-find-links --constraint constraints/run.txt --output-file constraints/dev.txt
	uv pip compile --group peers --universal --python-version 3.11 --generate-hashes \
		--no-header --no-emit-index-url --no-emit-find-links --upgrade --output-file constraints/peers.txt

clean: ## remove the virtual environment and the caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .schemathesis .import_linter_cache

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "MockPay needs Python 3.11 or newer, and $(PYTHON) is older; run 'make PYTHON=python3.11 $(MAKECMDGOALS)'."; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "Python's venv module is missing; on Debian: apt-get install python3-venv"; exit 1; }
	@touch $@

$(VENV)/.run: $(VENV)/.created constraints/run.txt pyproject.toml
	@echo "Installing MockPay into $(VENV) ..."
	@$(PIP) install --require-hashes --no-deps --requirement constraints/run.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m compileall -q src
	@touch $@

$(VENV)/.dev: $(VENV)/.run constraints/dev.txt
	@echo "Installing the tools for development into $(VENV) ..."
	@$(PIP) install --require-hashes --no-deps --requirement constraints/dev.txt
	@touch $@

$(VENV)/.peers: $(VENV)/.created constraints/peers.txt
	@echo "Installing what is compared with into $(PEERS) ..."
	@$(PYTHON) -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip --disable-pip-version-check --quiet --quiet install --require-hashes --no-deps \
		--requirement constraints/peers.txt
	@touch $@
