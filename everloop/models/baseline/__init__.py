"""First models of a table: simple ones, judged with care, to be beaten.

`definitions` is pure. `columns` says what each column is and which must go, `encoding` makes numbers of them,
`estimator` is the one class of all algorithms, `network` the small neural network (torch), `steps` the runners.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from everloop.models.baseline import network as network


def __getattr__(name: str) -> Any:
    """Load torch with the network that needs it."""
    if name != "network":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.network")
