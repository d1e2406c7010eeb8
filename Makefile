# Two commands are enough: `make demo` shows the main job, `make test` checks everything that is fast.
# Both set up what they need. The lock names versions and hashes, no host: any package index will do.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check extras format serve bench worlds clients clean

demo: $(READY)
	$(BIN)/roster demo

test: $(READY)
	$(BIN)/pytest -n 2 --dist loadgroup

check: $(READY)
	$(BIN)/ruff format --check src tests bench
	$(BIN)/ruff check src tests bench
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -n 2 --dist loadgroup

# The libraries of the optional sources, some 500 MB: with them their tests run too.
extras: $(READY)
	$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements-extras.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .

serve: $(READY)
	$(BIN)/roster serve

format: $(READY)
	$(BIN)/ruff format src tests bench
	$(BIN)/ruff check --fix src tests bench

# 2,000 random worlds instead of the 40 to 150 of `make test`, and 40 random requests an operation instead of 3; new ones
# each time, while `make test` takes the same ones every time.
worlds: $(READY)
	ROSTER_WORLDS=2000 ROSTER_FUZZ_EXAMPLES=40 $(BIN)/pytest --hypothesis-profile=random tests/query/test_oracle_equality.py tests/analyses tests/http/test_fuzz.py

# 1M profiles, 10M events: some minutes and some GB of disk.
bench: $(READY)
	$(BIN)/python -m bench

# The Go client is very large to build, so it runs only on request.
clients: $(READY)
	$(BIN)/pytest -m clients
	$(BIN)/python -m tests.clients.go

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv==0.13.9
	$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	$(BIN)/python -m compileall -q src
	touch $@

clean:
	rm -rf $(VENV) roster-data-demo-* .bench
