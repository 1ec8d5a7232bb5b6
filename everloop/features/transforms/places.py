"""Where a module was imported from."""

from pathlib import Path


def root_of(module: str, file: str) -> Path:
    """The folder that had to be on the path: `a.b` in `/p/a/b.py` came from `/p`."""
    path = Path(file).resolve()
    depth = module.count(".") + (1 if path.name == "__init__.py" else 0)
    return path.parents[min(depth, len(path.parents) - 1)]
