# Every target sets up what it needs: a virtual environment in .venv with the versions of constraints.txt.
# It is installed again only if one of the files that define it changes.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
WHEEL  := .wheel
WHEEL_READY := $(WHEEL)/.ready

SOURCES := $(sort $(shell find asmk_engine kernels codebooks -name '*.py' -o -name '*.toml' -o -path '*/shipped/*' -type f -o -name py.typed))
# The list of sources is written again only where it changed, so that a removed file makes a new wheel, too.
LISTED := $(WHEEL)/.sources
LISTING := $(shell mkdir -p $(WHEEL); echo $(SOURCES) | cmp -s - $(LISTED) || echo $(SOURCES) > $(LISTED))
PIP     := $(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help setup test test-slow rehearse torture demo docs image lint wheel-test wheel-test-all clean

help:
	@echo "make test        run the tests"
	@echo "make demo        search a small collection of real photographs; pictures and files go to demo/"
	@echo "make docs        build the documentation into site/"
	@echo "make test-slow   run the tests that take minutes"
	@echo "make rehearse    run every stage of the experiments of published tables on drawn photographs"
	@echo "make torture     kill, cut, fail and flip an index in every way there is: half an hour"
	@echo "make image       build the container of the search page, or check its description where docker does not run"
	@echo "make lint        ruff on the tree, mypy on the installed wheel"
	@echo "make wheel-test  build the wheel, install it into another environment and run the tests of the installed package"
	@echo "make wheel-test-all  run all tests against it"
	@echo "make setup       only the virtual environment in .venv"
	@echo "make clean       remove what these targets made"

setup: $(READY)

$(READY): setup.cfg pyproject.toml constraints.txt asmk_engine/version.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "$$($(PYTHON) --version) found, 3.11 or newer needed: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Installing into $(VENV): the first time this downloads a few hundred megabytes and takes some minutes ..."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) setuptools wheel
	@$(PIP) --no-build-isolation --editable '.[test,docs]'
	@touch $@
	@echo "Installed."

# The tests of a file run in one process, since they share fixtures.
PYTEST  := -m pytest --numprocesses auto --dist loadfile

test: $(READY)
	@$(BIN)/python $(PYTEST)

rehearse: $(READY)
	@$(BIN)/asmk-engine reproduce --rehearse --quiet

test-slow: $(READY)
	@$(BIN)/python -m pytest -m slow

TORTURE := tests/test_crash.py tests/test_failures.py tests/test_killed.py tests/test_flips.py tests/test_readers.py \
           tests/test_machine.py tests/test_fuzz.py tests/test_fused_damage.py tests/test_audit_killed.py

torture: $(READY)
	@$(BIN)/python -m pytest -m slow -s $(TORTURE)

demo: $(READY)
	@$(BIN)/asmk-engine demo

# The reference is read from the wheel, where kernels/ and codebooks/ have the names that they are imported by. With
# --quiet mkdocs would not count warnings, and --strict would mean nothing.
docs: $(WHEEL_READY)
	@PACKAGE="$$($(WHEEL)/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
	    NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "Written: site/index.html"

image: $(READY)
	@if docker info > /dev/null 2>&1; then docker build --tag asmk-engine .; \
	    else echo "docker does not run here; the Dockerfile is only checked"; $(BIN)/hadolint Dockerfile; fi

lint: $(READY) $(WHEEL_READY)
	@$(BIN)/ruff check .
	@if [ -x $(BIN)/hadolint ]; then $(BIN)/hadolint Dockerfile; fi
	@cd $(WHEEL) && ../$(BIN)/mypy --config-file ../pyproject.toml --python-executable venv/bin/python -p asmk_engine

# What may differ between the tree and the installed package: missing modules and data, the command, and processes that
# import the package by its name. `demo` and `doctor` run the command.
WHEEL_TESTS := $(addprefix test_,$(addsuffix .py,exports doctor demo frozen inspector reproduction network_extraction))

wheel-test: $(WHEEL_READY)
	@cd tests && ../$(WHEEL)/venv/bin/python $(PYTEST) -o pythonpath= $(WHEEL_TESTS)

wheel-test-all: $(WHEEL_READY)
	@cd tests && ../$(WHEEL)/venv/bin/python $(PYTEST) -o pythonpath=

# The wheel is built from the source archive, as a packager would, and installed into its own environment, which uses the
# dependencies of .venv through a .pth file; the editable install is not visible that way.
$(WHEEL_READY): $(READY) $(SOURCES) $(LISTED) MANIFEST.in
	@echo "Building the wheel and installing it into $(WHEEL) ..."
	@rm -rf $(WHEEL)/dist $(WHEEL)/venv
	@$(BIN)/python -m build --no-isolation --outdir $(WHEEL)/dist > $(WHEEL)/build.log 2>&1 || { cat $(WHEEL)/build.log >&2; exit 1; }
	@$(BIN)/python -m venv $(WHEEL)/venv
	@$(WHEEL)/venv/bin/python -m pip install -qq --disable-pip-version-check --no-deps $(WHEEL)/dist/*.whl
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > $(WHEEL)/dependencies
	@cp $(WHEEL)/dependencies "$$($(WHEEL)/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/dependencies.pth"
	@cd $(WHEEL) && venv/bin/python -c 'import asmk_engine, sys; path = asmk_engine.__file__; path.startswith(sys.prefix) or sys.exit(f"{path} was imported, the wheel in {sys.prefix} was to be tested")'
	@touch $@

clean:
	rm -rf $(VENV) $(WHEEL) build dist demo site asmk_engine.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find asmk_engine kernels codebooks benchmarks docs tests -name __pycache__ -prune -exec rm -rf {} +
