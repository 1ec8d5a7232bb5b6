"""Answers that gateways keep in memory: an erasure empties them all, for a key of a cache tells of nobody."""

import time

from everloop.catalog.context import Context
from everloop.core.errors import Unavailable
from everloop.serving.gateway.instead.cache import EPOCH, read_epoch
from everloop.serving.rollout.observe import gateways
from everloop.serving.table import write_atomically

_PATIENCE = 15.0


class AnswerCaches:
    """`core.ports.Erasable`: the caches of every gateway that runs."""

    place = "cached answers"

    def __init__(self, ctx: Context, patience: float = _PATIENCE) -> None:
        """Of the workspace of `ctx`; wait so many seconds for gateways to say that they forgot."""
        self._ctx, self._patience = ctx, patience

    def erase(self, key: str) -> int:  # noqa: ARG002 - everything is forgotten, whoever it is about
        """Empty them; returns how many rows were kept. Raises `Unavailable` when a gateway does not say that it did."""
        path = self._ctx.home / "serving" / EPOCH
        before = sum(said.get("kept", 0) for said in gateways(self._ctx.home, self._ctx.wall()))
        epoch = max(read_epoch(path) + 1, self._ctx.wall())
        write_atomically(path, str(epoch).encode())
        end = time.monotonic() + self._patience
        while late := [said for said in gateways(self._ctx.home, self._ctx.wall()) if said.get("forgot", 0) < epoch]:
            if time.monotonic() > end:
                names = ", ".join(str(said["gateway"]) for said in late)
                raise Unavailable(f"gateway {names} did not forget its cached answers", hint="restart it, erase again")
            time.sleep(0.1)
        return int(before)
