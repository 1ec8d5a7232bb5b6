"""Training frames across a Ray cluster: each task answers the questions of some entities of one view, by one DuckDB.

The answer to a question depends on the facts of its entity and on nothing else, so any way of dealing entities out
gives the same bytes as one machine. Steps on Ray are elsewhere (`flows.executors.on_ray`). Every node must read the
sources' paths.
"""

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO

import polars as pl
import ray

from everloop.core.errors import InvalidInput, Unavailable
from everloop.core.settings import use_ray_token
from everloop.features.batch.history import check, history
from everloop.features.batch.scan import Paths
from everloop.features.definitions import FeatureServiceDef, FeatureViewDef

_ROW = "everloop_row"
_PATIENCE = 10.0
"""Seconds that the head may take to accept a connection."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A Ray cluster that somebody started."""

    address: str
    """`host:port` of its head, or `ray://host:port`; never guessed, so that a stray cluster is not joined."""
    token: str = field(default="", repr=False)
    """What the cluster asks for (`RAY_AUTH_TOKEN`); empty where it asks for nothing."""
    parts: int = 0
    """Tasks for each view; as many as the cluster has CPUs when 0."""


def history_across(
    cluster: Cluster,
    service: FeatureServiceDef,
    spine: pl.DataFrame,
    sources: Mapping[str, Paths],
    *,
    at: str,
    memory: str = "1GB",
) -> pl.DataFrame:
    """`history.history`, computed on the cluster; `memory` bounds each task's DuckDB.

    A task whose node dies runs again elsewhere. Raises what `history` raises, `InvalidInput` without an address,
    `Unavailable` when the cluster does not answer.
    """
    check(service, spine, sources, at)
    with _joined(cluster):
        parts = cluster.parts or max(1, int(ray.cluster_resources().get("CPU", 1)))
        answer = ray.remote(num_cpus=1, max_retries=3)(_answer)
        asked = [(view, part) for view in service.views for part in _dealt(view, spine, at, parts)]
        pending = [
            answer.remote((view.name, view.manifest()), _packed(part.drop(_ROW)), _of(view, sources), at, memory)
            for view, part in asked
        ]
        answers = [_unpacked(done) for done in ray.get(pending)]
    columns = []
    for view in service.views:
        mine = [(part[_ROW], answer) for (v, part), answer in zip(asked, answers, strict=True) if v is view]
        rows = pl.concat([row for row, _ in mine])
        columns += pl.concat([answer for _, answer in mine])[rows.arg_sort()].get_columns()
    return spine.with_columns(columns)


def _of(view: FeatureViewDef, sources: Mapping[str, Paths]) -> dict[str, Paths]:
    return {name: sources[name] for name in view.datasets}


def _dealt(view: FeatureViewDef, spine: pl.DataFrame, at: str, parts: int) -> list[pl.DataFrame]:
    """The view's questions, those of an entity together, with their row in the spine."""
    asked = spine.select(list(dict.fromkeys([*view.entity, at]))).with_row_index(_ROW)
    part = asked.select(view.entity).hash_rows() % parts
    return [asked.filter(part == i) for i in range(parts)]


def _answer(
    named: tuple[str, Mapping[str, object]], asked: bytes, paths: Mapping[str, Paths], at: str, memory: str
) -> bytes:
    view = FeatureViewDef.from_manifest(*named)
    service = FeatureServiceDef("part", (view,))
    frame = history(service, _unpacked(asked), paths, at=at, threads=1, memory=memory)
    return _packed(frame.select(view.outputs))


def _packed(frame: pl.DataFrame) -> bytes:
    buffer = BytesIO()
    frame.write_ipc(buffer)
    return buffer.getvalue()


def _unpacked(packed: bytes) -> pl.DataFrame:
    return pl.read_ipc(BytesIO(packed))


def _reach(address: str) -> None:
    """Raise `Unavailable` where nothing listens: Ray itself asks again for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
    except (OSError, ValueError) as error:
        raise Unavailable(f"nothing answers at {address}: {error}", hint="is the cluster's head up?") from error


@contextmanager
def _joined(cluster: Cluster) -> Iterator[None]:
    if not cluster.address or cluster.address == "auto":
        raise InvalidInput("a cluster needs an address", hint="host:port of the head node, as `ray start` printed it")
    _reach(cluster.address)
    if cluster.token:
        use_ray_token(cluster.token)
    try:
        ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise Unavailable(
            f"the cluster at {cluster.address} does not answer: {error}", hint="is it up, and the token right?"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()
