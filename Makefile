# Two commands do everything on a machine with Python 3.10+ (with venv), g++ and make:
#   make demo    set up .venv, build, cluster 5,000 digits, print a table and the page to look at them
#   make test    set up .venv if needed, then run all tests
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(shell find csrc -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')
DEMO := runs/demo
# The environment that figures and CI are made in; any torch >= 2.11 works: make TORCH="torch torchvision".
TORCH ?= torch==2.14.1 torchvision==0.29.1
# Compilers at once.
JOBS := $(or $(MAX_JOBS),$(shell nproc))
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo picture test test-exhaustive emu lint format bench docs test-cuda sanitize-cuda bench-cuda gpu-check clean

demo: $(VENV)/.built
	$(BIN)/deepclust fit dhog --config small --data mnist5k --out $(DEMO) --resume auto
	$(BIN)/deepclust report $(DEMO)

# The page of the demo, as the README shows it.
picture: demo
	$(BIN)/python python_tests/support/picture.py $(DEMO)/report.html docs/report.png

test: $(VENV)/.built
	$(MAKE) --jobs=$(JOBS) emu
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=$(JOBS) --dist=worksteal -m "not timing and not exhaustive"
	$(BIN)/python -m pytest -m timing

# What others stand for in `make test`: the emulator's tests in every order of threads under the sanitizers, each kernel
# file without its barrier.
test-exhaustive: $(VENV)/.built
	$(MAKE) --jobs=$(JOBS) emu
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=$(JOBS) --dist=worksteal -m exhaustive

# The CUDA kernels on the CPU (csrc/emu), plain and under the sanitizers.
emu: build/emu/_emu.so build/emu-asan/_emu.so

EMU_OBJECTS := $(patsubst csrc/emu/%.cpp,%.o,$(wildcard csrc/emu/*.cpp))
# What runs the threads: most of the time of a test is spent there, and no kernel is in it for a sanitizer to watch.
EMU_SCHEDULER := barrier.o block.o fiber.o machine.o stack_guard.o warp.o
EMU_FLAGS := -std=c++20 -fPIC -fvisibility=hidden -Wall -Wextra -Werror -MMD -MP
$(addprefix build/emu/,$(EMU_OBJECTS)): EMU_LEVEL := -O1 -g1
# Without the checks that ask again at each access what AddressSanitizer sees anyway: they double the time.
$(addprefix build/emu-asan/,$(EMU_OBJECTS)) build/emu-asan/_emu.so: EMU_LEVEL := -O1 -g1 -fno-omit-frame-pointer \
  -fsanitize=address,undefined -fno-sanitize=null,object-size,pointer-overflow,vptr -fno-sanitize-recover=undefined
$(addprefix build/emu/,$(EMU_SCHEDULER)): EMU_LEVEL := -O2 -g1
$(addprefix build/emu-asan/,$(EMU_SCHEDULER)): EMU_LEVEL := -O2 -g1 -DDC_EMU_ASAN
build/emu/_emu.so: $(addprefix build/emu/,$(EMU_OBJECTS))
build/emu-asan/_emu.so: $(addprefix build/emu-asan/,$(EMU_OBJECTS))
build/emu/_emu.so build/emu-asan/_emu.so:
	$(CXX) $(EMU_FLAGS) $(EMU_LEVEL) -shared $^ -o $@
EMU_COMPILE = @mkdir -p $(@D) && $(CXX) $(EMU_FLAGS) $(EMU_LEVEL) $$($(BIN)/python -m pybind11 --includes) -c $< -o $@
build/emu/%.o: csrc/emu/%.cpp | $(VENV)/.packages
	$(EMU_COMPILE)
build/emu-asan/%.o: csrc/emu/%.cpp | $(VENV)/.packages
	$(EMU_COMPILE)
-include $(wildcard build/emu/*.d build/emu-asan/*.d)

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
	rm -f build/bench-avx2.json
	@if $(BIN)/deepclust info | grep -q "^simd *avx512"; then $(BIN)/deepclust bench --simd avx2 --json build/bench-avx2.json; fi
	$(BIN)/python benchmarks/report.py $$(ls build/bench.json build/bench-avx2.json 2> /dev/null) README.md benchmarks/results/speed.md

# The API reference, from the docstrings. A package's __all__ says what is in it.
DOCUMENTED := $(filter-out %.commands %.benchmark,$(subst /,.,$(patsubst %/__init__.py,%,$(wildcard deepclust_ext/__init__.py deepclust_ext/*/__init__.py))))
docs: $(VENV)/.built
	@$(BIN)/python -c "import pdoc" 2> /dev/null || $(BIN)/python -m pip install --quiet "pdoc>=15"
	$(BIN)/python -W ignore -m pdoc --docformat numpy --math --template-directory docs/reference --output-directory build/docs $(DOCUMENTED)
	@echo "API reference: build/docs/index.html"

# For a machine with a GPU: the ops' tests there, the same under compute-sanitizer's four tools, and the kernels' times.
test-cuda: $(VENV)/.built
	$(BIN)/python -m pytest -m cuda

SANITIZERS := memcheck racecheck initcheck synccheck
# torch.compile and the allocator's reuse would drown the tools: one test a kernel, no caching.
sanitize-cuda: $(addprefix sanitize-cuda-,$(SANITIZERS))
sanitize-cuda-%: $(VENV)/.built
	@command -v compute-sanitizer > /dev/null || { echo "No compute-sanitizer here: it is part of the CUDA toolkit"; exit 1; }
	PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool $* --target-processes all --error-exitcode 1 \
	  $(BIN)/python -m pytest -m "cuda and not slow" -k "matches_reference or same_bits_on_every_run" python_tests

bench-cuda: $(VENV)/.built
	$(BIN)/deepclust bench --device cuda --json build/bench-cuda.json

# All of it and more within eight minutes, into a folder: by $(PYTHON) and what is installed there, without .venv.
gpu-check:
	@test -n "$(OUT)" || { echo "No folder for the results: make gpu-check OUT=FOLDER"; exit 1; }
	@test -f deepclust_ext/_C.so || DEEPCLUST_CUDA=1 TORCH_CUDA_ARCH_LIST=native $(PYTHON) setup.py build_ext --inplace
	$(PYTHON) -m benchmarks.gpu_check $(OUT)

# The compiled library and the packages it needs: built once, and again when a source or pyproject.toml changes. nvcc.py
# keeps what the compiler says of each kernel, for the test of the budget.
$(VENV)/.built: $(VENV)/.packages pyproject.toml setup.py setup_cuda.py $(filter-out csrc/emu/%,$(SOURCES))
	PYTORCH_NVCC="$(CURDIR)/$(BIN)/python $(CURDIR)/python_tests/support/nvcc.py" \
	  $(BIN)/python -m pip install --quiet --no-build-isolation --editable ".[train,test,lint]"
	@touch $@

$(VENV)/.packages:
	@command -v $(PYTHON) > /dev/null || { echo "No $(PYTHON) here: install Python 3.10 or newer, or pass PYTHON=..."; exit 1; }
	@command -v $${CXX:-g++} > /dev/null || { echo "No C++ compiler here: apt-get install g++ (or set CXX)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "No venv module here: apt-get install python3-venv"; exit 1; }
	@echo "Installing torch and the tools into $(VENV): about 5 GB the first time."
	$(BIN)/python -m pip install --quiet "setuptools>=77" ninja numpy "pybind11>=2.11" $(TORCH)
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info deepclust_ext/*.so
