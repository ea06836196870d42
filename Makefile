# Two commands do everything from a fresh clone: `make demo` and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
export MLFLOW_DISABLE_TELEMETRY = true
export PYTHONUNBUFFERED = 1
# Where it is set, as in many containers, every process compiles PyTorch and MLflow again: ten seconds of processor time each.
unexport PYTHONDONTWRITEBYTECODE

PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: setup demo test test-fast test-long lint format pins bench clean

setup: $(READY)

# uv installs the pinned versions in seconds; where it is missing it is put into the environment first.
$(READY): requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "audio_cls needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet -r requirements.txt
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps -e .
	touch $(READY)

# The main job, on sounds that the project makes itself: data, a study on two workers, a leaderboard.
demo: setup
	$(BIN)/audio-cls data generate demo/sounds
	$(BIN)/audio-cls data prepare demo/sounds --name demo
	$(BIN)/audio-cls study run studies/demo.py --trials 14 --workers 2
	@echo
	@echo "Look at it:  $(BIN)/audio-cls ui     (then open the address it prints)"

test: setup
	$(PYTEST) -m "not long"

test-fast: setup
	$(PYTEST) -m "not slow and not long"

# Whole journeys by real commands, each of a minute or more: kills, signals, the README, the images' scripts.
test-long: setup
	$(BIN)/python -m pytest -n 2 --dist load -m long

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Exact versions for every platform, without any index's address.
pins: setup
	$(BIN)/uv pip compile pyproject.toml --extra dev --extra postgresql --extra dashboard --extra listen --extra demo --extra export --universal --python-version 3.11 \
		--no-header --no-annotate --upgrade -o requirements.txt

bench: setup
	$(BIN)/python benchmarks/metrics.py
	$(BIN)/python benchmarks/training.py

clean:
	rm -rf demo corpora/demo checkpoints outbox reports
