"""Copies of questions for a revision that callers do not meet yet: answered apart, compared, kept beside the real ones.

A copy is made after the caller was answered. At most so many are under way at once; more are dropped and counted, so
that a slow shadow costs callers nothing. Kept is the answer alone, under the id of the prediction: what was asked is in
the prediction log, where masking and erasure are.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from zlib import crc32

import msgspec
import numpy as np

from everloop.core.errors import EverloopError, StorageFull
from everloop.serving import log
from everloop.serving.columns import Outputs
from everloop.serving.gateway.fleet import Live, LiveRoute

_AT_ONCE = 64
_NOTHING = msgspec.Raw(b"\x90")
Array = np.ndarray[Any, Any]
Told = tuple[tuple[msgspec.Raw, bytes], Outputs, Mapping[str, Array]]
"""Outputs as they are logged, what callers see of them, and the answer."""


class Shadows:
    """The copies of one gateway."""

    def __init__(self, appender: log.Appender) -> None:
        """Keep answers with `appender`."""
        self._appender = appender
        self._running: set[asyncio.Task[None]] = set()

    def copy(
        self,
        route: LiveRoute,
        real: tuple[str, int, Mapping[str, Array]],
        ask: Callable[[Live], Awaitable[Told]],
    ) -> None:
        """Have a route's shadow answer a copy, if it is among its share; `real` is id, row count and answer."""
        shadow = route.shadow
        identity, rows, answer = real
        if shadow is None or crc32(identity.encode()) % 1_000_000 >= shadow.revision.shadow_ppm:
            return
        if len(self._running) >= _AT_ONCE or not shadow.ready:
            shadow.shadowed.dropped += rows
            return
        task = asyncio.get_running_loop().create_task(self._answer(route, shadow, (identity, rows, answer), ask))
        self._running.add(task)

        def ended(_task: object) -> None:
            self._running.discard(task)
            route.said = None

        task.add_done_callback(ended)

    async def _answer(
        self,
        route: LiveRoute,
        shadow: Live,
        real: tuple[str, int, Mapping[str, Array]],
        ask: Callable[[Live], Awaitable[Told]],
    ) -> None:
        identity, rows, answer = real
        started = time.monotonic()
        try:
            said, outputs, found = await ask(shadow)
        except EverloopError:
            shadow.shadowed.failed(rows)
            return
        micros = int((time.monotonic() - started) * 1e6)
        shown = {output.name: found[output.name] for output in outputs}
        shadow.shadowed.answered(rows, micros, differing(answer, shown, rows, route.route.tolerance))
        wall = time.time_ns() // 1000
        project, name = route.route.project, route.route.name
        entry = log.Entry(
            identity,
            wall,
            wall,
            project,
            name,
            shadow.revision.id,
            rows,
            _NOTHING,
            b"",
            *said,
            {},
            micros,
            "",
            "shadow",
        )
        try:
            self._appender.append(entry)
        except StorageFull:
            shadow.shadowed.dropped += rows

    def close(self) -> None:
        """Let go of what is under way."""
        for task in self._running:
            task.cancel()
        self._appender.close()


def differing(one: Mapping[str, Array], other: Mapping[str, Array], rows: int, tolerance: float) -> int:
    """How many rows differ: in any output, by more than `tolerance` where it is a number."""
    if one.keys() != other.keys():
        return rows
    apart = np.zeros(rows, bool)
    for name, left in one.items():
        right = other[name]
        if left.shape != right.shape or (left.dtype.kind in "biuf") != (right.dtype.kind in "biuf"):
            return rows
        if left.dtype.kind in "biuf":
            equal = np.isclose(left.astype(float), right.astype(float), rtol=0, atol=tolerance, equal_nan=True)
        else:
            equal = left == right
        apart |= ~equal.reshape(rows, -1).all(axis=1)
    return int(apart.sum())
