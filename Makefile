# make demo   a TPU-trained model becomes a GPU bundle, a Parquet dataset becomes predictions
# make test   everything that is promised, proven
# make check  linters, types, and what must parse on Python 3.7
# make bench  how fast it is beside its ceilings and its peers (benchmarks/README.md)
# make lock   the lock files again, from pyproject.toml and requirements/*.in

PY := .venv/bin/python
TOOLS := .venv-tools/bin
SOURCES := batchinfer conversion jobs examples benchmarks tests
UV ?= uv
COMPILE := $(UV) pip compile --quiet --generate-hashes

# Compiled modules are kept: the demo and the tests start dozens of Python processes.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check env tools bench lock clean

demo: env
	$(PY) examples/01_digits/demo.py

test: env tools check
	$(PY) -m pytest tests

check: tools
	$(TOOLS)/ruff check $(SOURCES)
	$(TOOLS)/ruff format --check $(SOURCES)
	$(TOOLS)/vermin --quiet --no-tips --backport dataclasses -t=3.7- --violations $(SOURCES)
	$(TOOLS)/mypy

bench: env
	@./setup_env.sh bench
	$(PY) -m benchmarks.bench $(BENCH)

env:
	@./setup_env.sh py37

tools:
	@./setup_env.sh tools

lock:
	$(COMPILE) --python-version 3.7 --extra s3 --extra gcs pyproject.toml -o requirements/py37.lock
	$(COMPILE) --python-version 3.7 --extra s3 --extra gcs --extra report --extra demo --extra dev \
	  -c requirements/py37.lock pyproject.toml -o requirements/py37-dev.lock
	$(COMPILE) --python-version 3.7.1 -c requirements/py37-dev.lock requirements/bench.in -o requirements/bench.lock
	$(COMPILE) --python-version 3.7 requirements/build.in -o requirements/build.lock
	$(COMPILE) --universal --python-version 3.9 requirements/installer.in -o requirements/installer.lock
	$(COMPILE) --universal --python-version 3.9 requirements/tools.in -o requirements/tools.lock

clean:
	rm -rf build .venv .venv-tools .venv-installer
