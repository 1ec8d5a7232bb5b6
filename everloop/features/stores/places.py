"""Which online store an environment has: the one that its binding `online_store` names, else LMDB in the workspace."""

import functools
import threading
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from everloop.core.errors import InvalidInput, Unavailable
from everloop.core.ports import OnlineStore
from everloop.core.settings import bindings
from everloop.features.stores.lmdb import LmdbStore

BINDING = "online_store"
_SERVED = ("redis://", "rediss://", "unix://")
_opening = threading.Lock()


class Opened(OnlineStore, Protocol):
    """A store that this process opened."""

    def close(self) -> None:
        """Give it back."""
        ...


def place_of(home: Path, environment: str) -> str:
    """The URL or the folder of an environment's online store; raises `InvalidInput` when `bindings.toml` is wrong."""
    bound = bindings(home, environment).get(BINDING)
    return str((home / "online").resolve() if bound is None else bound)


def is_served(place: str) -> bool:
    """Whether a server holds it, which may be slow or gone."""
    return place.startswith(_SERVED)


def store_of(home: Path, environment: str) -> Opened:
    """An environment's online store, opened once a process. Raises `InvalidInput`, `Unavailable`."""
    place = place_of(home, environment)
    with _opening:  # LMDB must not be opened twice in a process, and the cache alone lets two threads try
        return _opened(place)


@functools.cache
def _opened(place: str) -> Opened:
    return open_place(place)


def open_place(place: str, *, readonly: bool = False, **options: Any) -> Opened:
    """Open what `place_of` names; `options` are those of `RedisStore`. Raises `InvalidInput`, `Unavailable`."""
    if place.startswith(_SERVED):
        try:
            served: Any = import_module("everloop.features.stores.redis")  # its library comes with an extra
        except ImportError as error:
            raise Unavailable(f"{error.name} is not installed", hint="pip install everloop[redis]") from error
        url, _, prefix = place.partition("#")
        store: Opened = served.RedisStore(url, **({"prefix": prefix} if prefix else {}), **options)
        return store
    if "://" in place:
        raise InvalidInput(f"the online store {place.partition('://')[0]}:// is not known", hint="redis:// or a folder")
    return LmdbStore(Path(place), readonly=readonly)
