"""Judging a model on rows that it did not learn from, by splits that cannot leak.

`folds` is pure: how rows are split. `splitting` makes the splits and `leaks` refuses wrong ones, in NumPy; `steps` is
the runner of a trial that is cross-validated.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from everloop.models.validation import splitting as splitting


def __getattr__(name: str) -> Any:
    """Load what splits when something is split."""
    if name != "splitting":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.splitting")
