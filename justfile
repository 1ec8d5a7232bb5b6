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

# Pin every dependency again, torch and what only its CUDA build needs aside: those are gigabytes, and which build fits is
# the machine's affair (a CPU build: UV_FIND_LINKS, or PyTorch's own index).
lock:
    uv pip compile --generate-hashes --no-emit-index-url --no-emit-find-links --all-extras --upgrade \
        --custom-compile-command "just lock" \
        $(printf -- '--no-emit-package %s ' torch triton cuda-bindings cuda-pathfinder cuda-toolkit nvidia-cublas \
            nvidia-cuda-cupti nvidia-cuda-nvrtc nvidia-cuda-runtime nvidia-cudnn-cu13 nvidia-cufft nvidia-cufile \
            nvidia-curand nvidia-cusolver nvidia-cusparse nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvjitlink \
            nvidia-nvshmem-cu13 nvidia-nvtx) \
        pyproject.toml -o constraints.txt
