# Two commands do everything on a machine with Python 3.10+ (with venv), g++ and make:
#   make demo    set up .venv, build, cluster 5,000 digits, print a table and where the results are
#   make test    set up .venv if needed, then run all tests
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(shell find csrc -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')
DEMO := runs/demo
# The environment that figures and CI are made in; any torch >= 2.11 works: make TORCH="torch torchvision".
TORCH ?= torch==2.14.1 torchvision==0.29.1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test lint format bench clean

demo: $(VENV)/.built
	$(BIN)/deepclust fit dhog --config small --data mnist5k --out $(DEMO) --resume auto

test: $(VENV)/.built
	$(BIN)/python -m pytest

lint: $(VENV)/.built
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(SOURCES)

format: $(VENV)/.built
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(SOURCES)

bench: $(VENV)/.built
	$(BIN)/deepclust bench --json build/bench.json
	$(BIN)/python benchmarks/report.py build/bench.json README.md

# The compiled library, rebuilt when a source changes; the installed packages, when pyproject.toml does.
$(VENV)/.built: $(VENV)/.packages setup.py setup_cuda.py $(SOURCES)
	$(BIN)/python -m pip install --quiet --no-build-isolation --no-deps --editable .
	@touch $@

$(VENV)/.packages: pyproject.toml
	@command -v $(PYTHON) > /dev/null || { echo "No $(PYTHON) here: install Python 3.10 or newer, or pass PYTHON=..."; exit 1; }
	@command -v $${CXX:-g++} > /dev/null || { echo "No C++ compiler here: apt-get install g++ (or set CXX)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "No venv module here: apt-get install python3-venv"; exit 1; }
	@echo "Installing torch and the tools into $(VENV): about 5 GB the first time."
	$(BIN)/python -m pip install --quiet "setuptools>=77" ninja numpy $(TORCH)
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable ".[train,test,lint]"
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info deepclust_ext/*.so
