.PHONY: check test process docs sim bugs bench
START ?= 0
SEEDS ?= 200
check:  ## what CI runs first: format, lint, layers, types, fast tests
	ruff format --check . && ruff check .
	lint-imports
	mypy
	pytest -q -m "not slow and not process and not service"
test:  ## the fast tests only, while you work
	pytest -q -x -m "not slow and not process and not service"
process:  ## tests with real processes
	pytest -q -m "slow or process"
docs:  ## the documentation, in docs/_build/index.html; a warning is an error
	python -m sphinx -W --keep-going -n -q docs docs/_build
sim:  ## whole clusters under faults: SEEDS of them, beginning with seed START
	python -m parallelz.testing.simulation --start $(START) --count $(SEEDS)
bugs:  ## plant bugs in the core; which kinds of tests notice?
	python tests/planted_bugs.py
bench:  ## every figure, beside the peers that are installed
	python -m benchmarks
