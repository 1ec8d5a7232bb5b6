"""Where a subject's key may lie beside the tables: the prediction log and the online store."""

import struct

from everloop.catalog.context import Context
from everloop.catalog.governance import redactions
from everloop.core.errors import Unavailable
from everloop.core.ports import Erasable
from everloop.features.operations import online_store
from everloop.features.stores.lmdb import LmdbStore
from everloop.serving.erasure.segments import PredictionLog


class OnlineFeatures:
    """`core.ports.Erasable`: the embedded online store, written anew afterwards."""

    place = "online features"

    def __init__(self, ctx: Context) -> None:
        """Erase from the project of `ctx`."""
        self._ctx = ctx

    def erase(self, key: str) -> int:
        """Remove the state of the entity, alone or as one of several, in every view version of the project."""
        if not (self._ctx.home / "online").is_dir() and "online" not in self._ctx.ports:
            return 0
        store = online_store(self._ctx)
        if not isinstance(store, LmdbStore):
            raise Unavailable("this online store cannot erase a subject", hint="drop and materialize its views")
        with self._ctx.read() as tx:
            views = redactions.ids_of_kind(tx, self._ctx.project, "view")
        alone = (b"s" + key.encode(), b"i" + key.encode())
        among = tuple(struct.pack("<I", len(part)) + part for part in alone)

        def mine(stored: bytes) -> bool:
            entity = stored[1:]  # behind the byte that says which kind of state it is
            return entity in alone or any(part in entity for part in among)

        gone = store.forget([f"{self._ctx.project}/{view}" for view in views], mine)
        store.compact()
        return gone


def places(ctx: Context) -> list[Erasable]:
    """The places beside the tables where this workspace may hold a subject's key."""
    return [PredictionLog(ctx), OnlineFeatures(ctx)]
