# Two commands: `make demo` and `make test`. Both make the environment first (.venv).

PYTHON := $(firstword $(foreach v,3.11 3.12 3.13,$(shell command -v python$(v))) $(shell command -v python3))

.PHONY: demo test lint fuzz faults scale scale-full elsewhere bench lock wheels

demo: .venv
	test -d aoi-demo/data || .venv/bin/aoi sample aoi-demo/data --train 1000 --test 150
	.venv/bin/aoi run --data aoi-demo/data --home aoi-demo/home --config demo.toml

# mypy for every system at the same time, each with a cache of its own.
lint: .venv
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	printf '%s\n' linux win32 darwin | xargs -P 3 -I @ .venv/bin/mypy --platform @ --cache-dir .mypy_cache/@

test: lint
	.venv/bin/pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# 10,000 hostile inputs of each kind; a few minutes.
fuzz: .venv
	.venv/bin/python tests/fuzz/fuzz.py

# Kills, full disks, lost servers, Ctrl-C: see the script. A quarter to half an hour.
faults: .venv
	.venv/bin/python tests/faults/faults.py

# The same dataset from Dask, Flink and Spark; under 3 minutes once the jars are there, needs Java and Maven.
scale: .venv
	.venv/bin/python tests/scale/scale.py

# That, and clusters whose every role is killed, stores with faults, PostgreSQL, a Prefect work pool; 20 minutes, needs
# Go and PostgreSQL too. Parts: make scale-full SCALE="--only s3 gcs"
scale-full: .venv
	.venv/bin/python tests/scale/full.py $(SCALE)

# The model in MLflow, served where this project is not installed; a few minutes, needs uv.
elsewhere: .venv
	.venv/bin/python tests/elsewhere/elsewhere.py

# Every stage against what one would use without this project; half an hour. Options: make bench BENCH="--only read"
bench: .venv
	.venv/bin/python -m benchmarks $(BENCH)

# The lock is whole, so nothing is to be resolved: pip before 24 would fail at packages with extras.
.venv: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	  || { echo "make: Python 3.11, 3.12 or 3.13 is needed; make PYTHON=/path/to/python3.12 names one"; exit 2; }
	rm -rf .venv
	@trap '{ [ $$? = 0 ] || rm -rf .venv; } 2>/dev/null' EXIT; \
	if command -v uv >/dev/null; then set -ex; \
	  uv venv --quiet --python $(PYTHON) .venv; \
	  uv pip install --quiet --python .venv/bin/python --compile-bytecode --require-hashes --no-deps \
	    -r requirements.txt; \
	  uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation -e .; \
	else set -ex; \
	  $(PYTHON) -m venv .venv || { echo "make: on Debian and Ubuntu: apt install python3-venv"; exit 2; }; \
	  .venv/bin/pip install --quiet --require-hashes --no-deps -r requirements.txt; \
	  .venv/bin/pip install --quiet --no-deps --no-build-isolation -e .; \
	fi
	@touch .venv

# Resolves the dependencies anew, for every supported Python; needs uv.
lock:
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --extra test --upgrade \
	  --no-header pyproject.toml -o requirements.txt
	$(MAKE) wheels

# Whether every locked package comes as a wheel for every system and Python; needs uv.
wheels:
	for system in x86_64-pc-windows-msvc aarch64-apple-darwin x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu; do \
	  for python in 3.11 3.12 3.13; do \
	    uv pip install --quiet --dry-run --only-binary :all: --no-deps --require-hashes -r requirements.txt \
	      --python-platform $$system --python-version $$python --target build/wheels || exit 1; \
	  done; \
	done
