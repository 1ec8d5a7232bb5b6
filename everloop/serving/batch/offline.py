"""A revision that answers tables: the same entry, the same graph and workers as in a gateway, and no log."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from everloop.core.coherence import walk
from everloop.core.errors import InvalidInput, NotFound, Unavailable
from everloop.core.settings import RAY_TOKEN, SERVING_RAY
from everloop.core.signing import VerifyKey
from everloop.serving import log
from everloop.serving import table as tables
from everloop.serving.columns import Outputs
from everloop.serving.distributed.linking import Cluster, cluster_for
from everloop.serving.gateway.answer import Asked, Predictions
from everloop.serving.gateway.crew import Crew, Size
from everloop.serving.gateway.features import Features
from everloop.serving.gateway.fleet import Live, LiveRoute
from everloop.serving.gateway.instead.cache import Cache
from everloop.serving.gateway.shadows import Shadows
from everloop.serving.gateway.stats import Counters, NodeCounters, ShadowCounters
from everloop.serving.graph.fusing import running
from everloop.serving.protocol.question import Question
from everloop.serving.rollout.entries import weighted
from everloop.serving.table import Route

_ROWS = 2048
_START_SECONDS = 120.0
_DEADLINE = 600_000_000
_PATIENCE = 30.0
"""How long replicas wait for a scoring that was killed to go on; then they end."""
_STICKY = frozenset(("splitter", "call"))
"""Nodes that choose by the caller's key: their rows are asked one by one, as callers ask them."""


class _Nowhere(log.Appender):
    """Keeps nothing: what is scored becomes a dataset, not predictions."""

    def __init__(self) -> None:
        """Open nothing."""

    def append(self, entry: log.Entry) -> None:
        """Leave it."""


def routes_of(home: Path) -> dict[str, Route]:
    """The routes that gateways of this workspace serve, by address; raises `NotFound`, `CorruptObject`."""
    key = VerifyKey.from_pem((home / "keys" / "verify.pem").read_bytes())
    found = tables.load(home / "serving" / "routes.json", key)
    return {route.address: route for route in found.routes}


class Offline:
    """Answers tables; made by `opened`."""

    def __init__(
        self, home: Path, routes: Mapping[str, Route], address: str, workers: int, cluster: Cluster | None = None
    ) -> None:
        """`workers` processes for each part of each endpoint that may be asked; with a `cluster` replicas there."""
        self._features = Features(home)
        self._cluster = cluster
        self._crews: dict[bytes, Crew] = {}
        self._size = Size(workers, workers)
        self._routes = routes
        self._live: dict[str, LiveRoute] = {}
        nowhere, cache = _Nowhere(), Cache(home / "serving")  # nothing here is answered from it
        self._predictions = Predictions(nowhere, 0, self._features, self._route, Shadows(nowhere), cache=cache)
        self.route = self._route(address)
        self.live = self.route.live[0]
        graph = self.live.graph
        self._rows = 1 if graph is not None and any(n["node"] in _STICKY for n in walk(graph)) else _ROWS
        self._room = asyncio.Semaphore(2 * workers)

    def _route(self, address: str) -> LiveRoute:
        if address not in self._live:
            if address not in self._routes:
                raise NotFound(f"there is no endpoint {address!r}", hint="nothing of this name is live")
            route = self._routes[address]
            self._live[address] = LiveRoute(route, [self._made(route, revision) for revision in route.revisions])
        return self._live[address]

    def _made(self, route: Route, revision: tables.Revision) -> Live:
        workers = {}
        for name, part in running(revision).items():
            key = msgspec.msgpack.encode(part)
            if key not in self._crews:
                self._crews[key] = Crew(part, self._size, cluster=self._cluster)
            workers[name] = self._crews[key]
        counted = range(sum(1 for _ in walk(revision.graph))) if revision.graph else range(0)

        def shown(name: str) -> Outputs:
            return self._route(f"{route.project}.{name}").champion.shown

        return Live(revision, workers, Counters(), {n: NodeCounters() for n in counted}, ShadowCounters(), shown)

    async def tend(self) -> None:
        """Look after the workers, for ever."""
        while True:
            await asyncio.sleep(0.05)
            for crew in self._crews.values():
                crew.tend(time.monotonic())

    async def answer(self, table: pa.Table) -> dict[str, pa.Array]:
        """The outputs for each row, by name; raises `InvalidInput` for columns that do not fit, `StepFailed`."""
        starts = range(0, table.num_rows, self._rows)
        columns_of(table.slice(0, 1), self.live.caller.names)  # refused before anything is asked
        made = await asyncio.gather(*(self._asked(table.slice(start, self._rows)) for start in starts))
        return {name: pa.concat_arrays([one[name] for one in made]) for name in made[0]}

    async def _asked(self, table: pa.Table) -> dict[str, pa.Array]:
        question = Question(columns_of(table, self.live.caller.names), table.num_rows)
        async with self._room:
            asked = Asked(self.route, question, 0, b"", "", "batch", time.monotonic())
            answered = await self._predictions.answer(asked)
        return {output.name: _arrow(answered.answer[output.name]) for output in answered.outputs}

    async def close(self) -> None:
        """End the workers."""
        await asyncio.gather(*(crew.retire() for crew in self._crews.values()))
        if self._cluster is not None:
            await self._cluster.close()
        self._features.close()


@asynccontextmanager
async def opened(home: Path, address: str, revision: str, workers: int, cluster: str = "") -> AsyncIterator[Offline]:
    """The revision, warm; raises `NotFound` when it is not live, `Unavailable` when it cannot answer.

    `cluster` names its applications on the Ray cluster that this process's environment knows, where models then answer;
    raises `InvalidInput` when it knows none.
    """
    routes = routes_of(home)
    if address in routes:
        route = routes[address]
        routes[address] = msgspec.structs.replace(
            route,
            revisions=[weighted(chosen(route, revision), 100)],
            fallback=None,
            instead=[],
            split=None,
            deadline_micros=_DEADLINE,
        )
    offline = Offline(home, routes, address, workers, _cluster(home, cluster) if cluster else None)
    tending = asyncio.get_running_loop().create_task(offline.tend())
    try:
        offline.live.wake()
        if not await offline.live.become_ready(_START_SECONDS):
            raise Unavailable(offline.live.reason or "its workers did not start in time")
        yield offline
    finally:
        tending.cancel()
        with suppress(asyncio.CancelledError):
            await tending
        await offline.close()


def _cluster(home: Path, name: str) -> Cluster:
    mark = VerifyKey.from_pem((home / "keys" / "verify.pem").read_bytes()).key_id
    found = cluster_for(os.environ.get(SERVING_RAY, ""), os.environ.get(RAY_TOKEN, ""), home, name, mark)
    if found is None:
        raise InvalidInput("no cluster is known here", hint=f"start the workers with {SERVING_RAY} and {RAY_TOKEN}")
    found.patience = _PATIENCE
    return found


def chosen(route: Route, revision: str) -> tables.Revision:
    """The revision by number or id; without one that with most of the traffic."""
    if revision:
        return route.revision(revision)
    if not route.revisions:
        raise NotFound(f"{route.address} has no live revision", hint="look at the endpoint")
    return max(route.revisions, key=lambda one: one.weight)


def columns_of(table: pa.Table, names: Iterable[str]) -> dict[str, Any]:
    """Columns as a caller would send them; raises `InvalidInput` naming one that is not there."""
    columns: dict[str, Any] = {}
    for name in names:
        if name not in table.column_names:
            raise InvalidInput(f"the dataset has no column {name!r}", hint="the endpoint asks for " + ", ".join(names))
        column = table[name]
        plain = not column.null_count and pa.types.is_primitive(column.type) and not pa.types.is_temporal(column.type)
        columns[name] = column.to_numpy() if plain else column.to_pylist()
    return columns


def beside(table: pa.Table, answer: Mapping[str, pa.Array], kept: list[str] | None) -> pa.Table:
    """The kept columns (None: all) and the outputs; an output that is called like one of them is `answer.<name>`."""
    scored = table if kept is None else table.select(list(dict.fromkeys(kept)))
    for name, values in answer.items():
        scored = scored.append_column(f"answer.{name}" if name in scored.column_names else name, values)
    return scored


def _arrow(array: np.ndarray[Any, Any]) -> pa.Array:
    return pa.array(array.tolist() if array.ndim > 1 or array.dtype.kind in "OU" else array)
