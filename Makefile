# Everything here works in a fresh clone: `.venv` is made when it is first needed.

PYTHON ?= python3
# Every process would compile HotSwap's own modules anew.
unexport PYTHONDONTWRITEBYTECODE
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: help demo demo-check serve agent test check coverage test-faults test-defaults test-chart chaos fuzz bench load-test scale-test soak screenshots lint format browser proxy prometheus lock clean

help:
	@echo "make demo        HotSwap with a fleet that takes a good and then a bad update"
	@echo "make demo-check  the same without a person; fails if the story goes wrong"
	@echo "make serve       HotSwap alone"
	@echo "make agent       the agent as a wheel of its own, for devices"
	@echo "make test        checks and the whole test suite"
	@echo "make check       checks and the tests of what changed since main, 2 minutes"
	@echo "make coverage    the test suite, and how much of the code it runs"
	@echo "make test-faults power cuts, kills and freezes at every step, chance from SEED"
	@echo "make chaos       faults of 39 kinds on two hosts, chance from SEED, as many as FAULTS"
	@echo "make test-defaults  bad images on real agents at all defaults, 15 minutes"
	@echo "make test-chart  the Helm chart, rendered by a real helm and held against the schemas"
	@echo "make fuzz        requests drawn from the API's description and odd ones, to API and console"
	@echo "make bench       speed beside its targets, on a database of a million devices"
	@echo "make load-test   100,000 devices through one deployment over HTTP, with a report"
	@echo "make soak        100,000 devices that live on for an hour: does anything grow?"
	@echo "make scale-test  whole hosts behind one proxy: upgraded, lost, added, with a report"
	@echo "make screenshots  every page of the console on the demo, in build/screenshots"
	@echo "make lint        style, types, imports, and advisories about packages"
	@echo "make clean       remove the environment and caches (data folders stay)"

demo: $(VENV)/.ready
	@exec $(BIN)/hotswap demo $(ARGS)

demo-check: $(VENV)/.ready
	@exec $(BIN)/hotswap demo --check $(ARGS)

serve: $(VENV)/.ready
	@exec $(BIN)/hotswap serve $(ARGS)

agent: $(VENV)/.ready
	@rm -rf build/agent && mkdir -p build/agent
	@cp -r devices/agent build/agent/source
	@$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps \
		--no-build-isolation --wheel-dir build/agent build/agent/source
	@ls build/agent/*.whl

# So many processes share the tests, each with servers of its own; 0 is none but one.
# Half of the time a test waits for other processes.
TEST_PROCESSES ?= 4
SHARED := --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

# The checks take one core for a minute, beside tests that leave half of it idle. What
# they find is printed at once, and fails the target in the end.
test: $(VENV)/.ready-dev browser proxy prometheus
	@mkdir -p build; \
	( ( $(LINT) ) > build/lint.txt 2>&1 || { cat build/lint.txt; false; } ) & lint=$$!; \
	$(BIN)/python -m pytest $(SHARED) $(ARGS); tests=$$?; \
	wait $$lint || { echo "The checks failed: see build/lint.txt"; exit 1; }; \
	exit $$tests

# The nearest tests first; after the time no further one begins, and the last line says
# how many were not reached. Another branch than main to compare with: BASE=...
CHECK_SECONDS ?= 75

check: lint prometheus
	@tests=$$(BASE=$(or $(BASE),main) $(BIN)/python -m tests.changed); \
	[ -n "$$tests" ] || { echo "No test is concerned by what changed."; exit 0; }; \
	$(BIN)/python -m pytest --quiet -p tests.time_limit --seconds $(CHECK_SECONDS) \
		-m "not stack and not browser and not campaign and not defaults and not chart and not chaos" \
		$(ARGS) $$tests

# The same tests take half as long again while what they run is counted.
coverage: browser proxy prometheus
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest $(SHARED) $(ARGS)
	@$(BIN)/python -m coverage combine --quiet
	@$(BIN)/python -m coverage report > $(VENV)/coverage.txt \
		|| { cat $(VENV)/coverage.txt; exit 1; }
	@grep '^TOTAL' $(VENV)/coverage.txt

# Again with the same chance: SEED=7. One case alone: CASE=... as the report names it.
# ALL=1 leaves none out for want of time.
test-faults: $(VENV)/.ready-dev
	SEED=$(SEED) CASE='$(CASE)' ALL=$(ALL) $(BIN)/python -m pytest -m campaign $(ARGS)

# Others: SEED=7. So many: FAULTS=2000; at most so long: MINUTES=60. Some kinds alone, or
# one case as the report names it: CASE='database.*'. Devices of a deployment: DEVICES=100;
# faults of a deployment: EACH=3.
chaos: proxy
	SEED=$(SEED) CASE='$(CASE)' FAULTS=$(FAULTS) MINUTES=$(MINUTES) DEVICES=$(DEVICES) \
		EACH=$(EACH) $(BIN)/python -m pytest -m chaos tests/chaos $(ARGS)

test-defaults: $(VENV)/.ready-dev
	$(BIN)/python -m pytest -m defaults tests/deployments/test_defaults.py $(ARGS)

# Go builds a helm of this version where there is none; its first build takes minutes.
HELM_VERSION := v3.18.4
# The schemas of all versions of Kubernetes, 23 MB.
KUBERNETES_VALIDATE_VERSION := 1.37.0

test-chart: $(VENV)/.ready-dev
	@command -v helm > /dev/null || [ -x $(BIN)/helm ] || { \
		echo "Building helm $(HELM_VERSION) ..."; \
		GOBIN=$(abspath $(BIN)) go install helm.sh/helm/v3/cmd/helm@$(HELM_VERSION); }
	@[ -x build/chart/bin/kubernetes-validate ] || { \
		echo "Fetching the schemas of Kubernetes ..."; \
		$(PYTHON) -m venv build/chart && build/chart/bin/python -m pip install \
			--quiet kubernetes-validate==$(KUBERNETES_VALIDATE_VERSION); }
	PATH="$(abspath $(BIN)):$(abspath build/chart/bin):$$PATH" \
		$(BIN)/python -m pytest -m chart tests/stack/test_chart.py $(ARGS)

# `make test` sends 10,000 such requests. Others: SEED=7. More: REQUESTS=1000000.
fuzz: $(VENV)/.ready-dev
	SEED=$(SEED) REQUESTS=$(or $(REQUESTS),250000) ODD_REQUESTS=$(ODD_REQUESTS) \
		CONSOLE_REQUESTS=$(or $(CONSOLE_REQUESTS),5000) \
		$(BIN)/python -m pytest --timeout=0 tests/fuzz $(ARGS)

# Fewer devices: ARGS="--devices 2000". The devices are a program in Go.
load-test: $(VENV)/.ready-dev
	@exec $(BIN)/python -m tests.load $(ARGS)

# Fewer, or shorter: ARGS="--devices 20000 --minutes 15".
soak: $(VENV)/.ready-dev
	@exec $(BIN)/python -m tests.soak $(ARGS)

# Fewer: ARGS="--devices 200 --hosts 2".
scale-test: proxy
	@exec $(BIN)/python -m tests.scale $(ARGS)

# Some benches alone, or a smaller database: ARGS="polls heartbeats --devices 200000".
bench: $(VENV)/.ready-dev
	@exec $(BIN)/python -m tests.bench $(ARGS)

# Of a demo that runs: ARGS="--data-dir .hotswap-demo"; some pages: ARGS="system/".
screenshots: browser
	@exec $(BIN)/python -m tests.screenshots $(ARGS)

LINT = set -x; $(BIN)/ruff check . \
	&& $(BIN)/ruff format --check . \
	&& $(BIN)/mypy \
	&& $(BIN)/lint-imports --no-cache \
	&& DJANGO_SETTINGS_MODULE=hotswap.settings.test $(BIN)/python -W ignore \
		manage.py makemigrations --check --dry-run \
	&& $(BIN)/python -m tests.advisories requirements.lock requirements-dev.lock

lint: $(VENV)/.ready-dev
	@$(LINT)

format: $(VENV)/.ready-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

browser: $(VENV)/.ready-dev
	@$(BIN)/python -m tests.browser

proxy: $(VENV)/.ready-dev
	@$(BIN)/python -m tests.nginx
	@$(BIN)/python -m tests.haproxy
	@$(BIN)/python -m tests.pgbouncer

prometheus: $(VENV)/.ready-dev
	@$(BIN)/python -m tests.prometheus

# The locks name packages, versions and hashes, and no address to fetch them from.
lock:
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet uv
	build/lock/bin/uv pip compile --quiet --universal --python-version 3.11 \
		--generate-hashes --no-header --no-annotate --no-emit-index-url \
		--extra build pyproject.toml --output-file requirements.lock
	build/lock/bin/uv pip compile --quiet --universal --python-version 3.11 \
		--generate-hashes --no-header --no-annotate --no-emit-index-url \
		--extra build --extra dev pyproject.toml --output-file requirements-dev.lock

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -f .coverage .coverage.*

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
		|| { echo "HotSwap needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is another;" \
		"name one, as in: make PYTHON=python3.12 demo" >&2; exit 1; }
	@echo "Making the environment in $(VENV) ..."
	@$(PYTHON) -m venv $(VENV) || { echo "$(PYTHON) cannot make environments;" \
		"install its venv module (Debian: apt-get install python3-venv)" >&2; \
		rm -rf $(VENV); exit 1; }

$(VENV)/.ready: requirements.lock pyproject.toml | $(BIN)/python
	@echo "Installing what HotSwap stands on ..."
	@$(PIP_INSTALL) --no-deps --require-hashes -r requirements.lock
	@$(PIP_INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.ready-dev: requirements-dev.lock $(VENV)/.ready | $(BIN)/python
	@echo "Installing the development tools ..."
	@$(PIP_INSTALL) --no-deps --require-hashes -r requirements-dev.lock
	@touch $@
