# Two commands matter: `make run` and `make test`. `make help` lists the rest.

PYTHON ?= $(shell for name in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$name; break; }; done)
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet install --require-hashes
UV := uv pip compile --universal --generate-hashes --no-header --quiet -p 3.11
LOCK_NOTE := \# The lock: every package with its hashes, from pyproject.toml by `make lock`. Do not edit.
ON_SERVERS := $(if $(KAFKA_BOOTSTRAP_SERVERS),tests/e2e/kafka) tests/chaos/test_faults.py tests/e2e/browser tests/e2e/system \
	tests/integration/actions tests/integration/ingest/test_bridge_batches.py tests/integration/store \
	tests/integration/web/api/test_api_inbox.py tests/integration/web/inbox/test_inbox_actions.py tests/integration/web/streams/test_stream.py
JOBS ?= 2
PYTEST := $(PY) -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder
ARGS ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test test-services chaos soak judge bench check lock clean

help: ## Say what each target does
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | column -t -s '|' 2>/dev/null \
		|| sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1  \2/p' Makefile

run: export DEMO ?= 1
run: $(VENV)/.installed ## Start the whole system on http://127.0.0.1:8000 (PORT, DATA_DIR, DEMO=0, … as in docs/settings.md; KAFKA=1 brings Apache Kafka too, on KAFKA_PORT or 9092)
	@$(if $(filter 1,$(KAFKA)),$(PY) -m tests.support.kafka.server --port $(or $(KAFKA_PORT),9092) --) $(PY) -m broadcast.launcher --end-with-parent

test: $(VENV)/.installed-dev ## Run every test, JOBS at a time (2); what this machine cannot run (browser, PostgreSQL) is skipped by name (ARGS="-k hub")
	@$(PYTEST) $(ARGS)

test-services: $(VENV)/.installed-dev ## Run again, on DATABASE_URL and REDIS_URL (and KAFKA_BOOTSTRAP_SERVERS), all that could differ there
	@test -n "$$DATABASE_URL" && test -n "$$REDIS_URL" || { echo "Set DATABASE_URL and REDIS_URL to the servers to test against." >&2; exit 1; }
	@$(PYTEST) -m "not alike" $(ON_SERVERS) $(ARGS)

chaos: $(VENV)/.installed-dev ## Break the real system in every way of docs/verification.md and judge what everybody saw (ARGS="F09 --seed 7")
	@$(PY) -m tests.chaos.run $(ARGS)

soak: $(VENV)/.installed-dev ## Minutes of faults drawn by chance, one on top of the other, for HOURS (ARGS="--seed 7")
	@$(PY) -m tests.chaos.run minute --hours $(or $(HOURS),1) --people 50 --streams 3 $(ARGS)

judge: $(VENV)/.installed-dev .venv-judges/.installed tests/support/external_audits/node_modules/.installed ## Let programs nobody here wrote judge the system (ARGS="schemathesis")
	@$(PY) -m tests.support.external_audits $(ARGS)

bench: $(VENV)/.installed-dev ## Measure streams and pages beside other servers (needs cc; minutes; bench/README.md)
	@$(PY) -m bench.run $(ARGS)

test-kafka: $(VENV)/.installed-dev ## Run the tests of the bridge on Apache Kafka 4 (needs Java 17, and Maven the first time)
	@$(PY) -m tests.support.kafka.server -- $(PY) -m pytest tests/e2e/kafka $(ARGS)

kafka: $(VENV)/.installed-dev ## Run Apache Kafka 4 on 127.0.0.1:9092 until Ctrl-C (KAFKA_PORT)
	@$(PY) -m tests.support.kafka.server --port $(or $(KAFKA_PORT),9092)

check: $(VENV)/.installed-dev ## Check style and formatting (ruff)
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

lock: ## Write requirements*.txt anew from pyproject.toml (needs uv)
	@command -v uv >/dev/null || { echo "make lock needs uv: https://docs.astral.sh/uv/" >&2; exit 1; }
	@$(UV) pyproject.toml -o requirements.txt
	@for group in oidc otel dev; do $(UV) --group $$group -c requirements.txt -o requirements-$$group.txt || exit 1; done
	@for file in requirements.txt requirements-oidc.txt requirements-otel.txt requirements-dev.txt; do \
		{ echo '$(LOCK_NOTE)'; grep -vxF '$(LOCK_NOTE)' $$file; } > $$file.new && mv $$file.new $$file; done

clean: ## Remove the virtual environment and caches (DATA_DIR stays: it holds your data)
	@rm -rf $(VENV) .kafka .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps make the second start quick: they are older than the lock only when the lock changed.
$(VENV)/.installed: requirements.txt | $(PY)
	@echo "Installing packages into $(VENV) …"
	@$(PIP) -r requirements.txt
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	@echo "Installing what the tests need …"
	@$(PIP) -r requirements.txt -r requirements-dev.txt
	@touch $@

.venv-judges/.installed: tests/support/external_audits/requirements.txt
	@$(PYTHON) -m venv --clear .venv-judges
	@.venv-judges/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes -r $<
	@touch $@

tests/support/external_audits/node_modules/.installed: tests/support/external_audits/package-lock.json
	@command -v npm >/dev/null || { echo "make judge needs Node.js with npm." >&2; exit 1; }
	@cd tests/support/external_audits && npm ci --silent --ignore-scripts
	@touch $@

# A half-made environment is removed: it would pass for a whole one next time.
$(PY):
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed, and none was found. Install it, or name it: make PYTHON=/path/to/python3.12 …" >&2; exit 1; }
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 or newer is needed; $(PYTHON) is not a program." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) --version 2>&1)." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo "$(PYTHON) cannot make a virtual environment: on Debian and Ubuntu, apt-get install python3-venv." >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); exit 1; }
