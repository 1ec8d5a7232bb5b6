"""The estimator as modules of a project: what a first model's pickle names is packaged with it, as all code is."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

PACKAGE = "first_models"
_PARTS = ("definitions", "encoding", "estimator")
_HERE = __name__.rpartition(".")[0]


def shipped() -> Mapping[str, str]:
    """Path and text of each file, for the project's folder."""
    files = {f"{PACKAGE}/__init__.py": '"""The estimator of first models, as Everloop ships it."""\n'}
    for part in _PARTS:
        text = Path(str(import_module(f"{_HERE}.{part}").__file__)).read_text(encoding="utf-8")
        files[f"{PACKAGE}/{part}.py"] = text.replace(f"from {_HERE}.", f"from {PACKAGE}.")
    return files
