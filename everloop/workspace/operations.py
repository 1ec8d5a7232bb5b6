"""Loads every module that declares operations: the one list of what Everloop can be asked."""

from importlib import import_module

_MODULES = (
    "everloop.data.operations",
    "everloop.features.operations",
    "everloop.models.registry",
    "everloop.checks.record",
    "everloop.changes.environments",
    "everloop.changes.operations",
    "everloop.changes.access",
    "everloop.serving.operations",
    "everloop.watch.operations",
    "everloop.workspace.system",
)


def load_operations() -> None:
    """Import them; doing it again costs nothing."""
    for name in _MODULES:
        import_module(name)
