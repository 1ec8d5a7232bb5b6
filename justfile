# What a contributor runs; `just` lists it.
default:
    @just --list

# everything that CI checks, in the current environment
check: lint test

lint:
    ruff check .
    ruff format --check .
    mypy
    lint-imports

test *args:
    pytest {{args}}

# the long ones: chaos, thousands of parity cases
slow:
    pytest -m slow --timeout=3600

demo:
    everloop demo

bench name *args:
    python benchmarks/{{name}}.py {{args}}

# pin every dependency again
lock:
    uv pip compile --generate-hashes --no-emit-index-url --all-extras --upgrade pyproject.toml -o constraints.txt
