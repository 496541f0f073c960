.PHONY: check test process docs bench clean
check:  ## what CI runs first: format, lint, layers, types, fast tests
	ruff format --check . && ruff check .
	lint-imports
	mypy
	pytest -q -m "not slow and not process and not service"
test:  ## the fast tests only, while you work
	pytest -q -x -m "not slow and not process and not service"
process:  ## tests with real processes
	pytest -q -m "slow or process"
bench:  ## every figure, beside the peers that are installed
	python -m benchmarks
