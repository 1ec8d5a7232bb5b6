"""The gRPC service on the gateway's one port.

`service` loads gRPC itself; that happens with the first connection that speaks HTTP/2.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from everloop.serving.gateway.rpc import service

__all__ = ["service"]


def __getattr__(name: str) -> Any:
    """Load the service when it is first used; raises `ImportError` where gRPC is not installed."""
    if name == "service":
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
