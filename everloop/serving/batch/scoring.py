"""A dataset version through a revision, part by part, into a dataset: resumable, and the same result once.

What is scored of a part lies in `home/scoring/<revision and dataset>/<part>` until all parts are there; then the whole
becomes a version in one transaction. Its id follows from its rows, so whoever is killed after it, and scores again,
makes the same version. One that is killed before goes on behind the last part that was written.
"""

import asyncio
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from everloop.catalog import facts, placements, versions
from everloop.catalog.context import Context
from everloop.core.errors import InvalidInput
from everloop.core.ids import manifest_id
from everloop.data.codec import DataCodec, manifest_of, paths_of
from everloop.data.content.parts import known_to
from everloop.data.definitions import Contract
from everloop.data.editing.applying import edit
from everloop.data.heads import advance_head, find_version, head
from everloop.data.reading.forms import read
from everloop.serving.batch import offline
from everloop.serving.batch.scorer import Piece, Who
from everloop.serving.batch.spreading import spread

TASK = "endpoints.score"
_SLICE = 2048
RULE = 1
"""Counts up when the same revision would score the same rows into other bytes."""


@dataclass(frozen=True, slots=True)
class Means:
    """By how much is scored at once."""

    workers: int = 2
    """Processes for each part of the graph, in each of `processes`; on a cluster, replicas."""
    processes: int = 1
    """That read, look up, run the graph and write."""
    cluster: bool = False
    """Whether models answer on the Ray cluster that this machine's workers know."""

    def who(self, home: Path, address: str, revision: str, mark: str) -> Who:
        """Who answers; `mark` names the scoring, so that who takes it up finds its replicas."""
        return Who(str(home), address, revision, self.workers, f"score-{mark[:16]}" if self.cluster else "")


ONE = Means()


@dataclass(frozen=True, slots=True)
class Scored:
    """What was scored."""

    id: str
    """The version of the dataset of scores; empty when there was nothing new."""
    rows: int
    parts: int
    reused: int
    """Parts that an interrupted scoring had finished."""
    revision: str
    seconds: float


def score(
    ctx: Context,
    endpoint: str,
    dataset: str,
    *,
    environment: str,
    revision: str = "",
    name: str = "",
    means: Means = ONE,
) -> Scored:
    """Score every row of a dataset version by a live revision; the head of `data/<name>` moves to the result.

    Columns of the result: the dataset's key and event time (without a key all of its columns), and the outputs.
    Raises `NotFound`, `InvalidInput` (columns that do not fit, no rows), `StepFailed` (the model), `Unavailable`.
    """
    began = time.perf_counter()
    row = find_version(ctx, dataset, environment)
    manifest = manifest_of(ctx, row.id)
    if not manifest["rows"]:
        raise InvalidInput(f"{dataset} has no rows to score", hint="name another version")
    address = f"{ctx.project}.{endpoint}"
    routes = offline.routes_of(ctx.home)
    entry = offline.chosen(routes[address], revision).id if address in routes else ""
    folder = ctx.home / "scoring" / manifest_id({"revision": entry, "data": row.id, "rule": RULE}).removeprefix("b3:")
    folder.mkdir(parents=True, exist_ok=True)
    reused = _all_parts(ctx, manifest, means.who(ctx.home, address, entry, folder.name), folder, means.processes)
    name = name or f"scores.{endpoint}"
    inputs = {"scored": row.id, "revision": entry, **_models(ctx, entry)}
    identity = _captured(ctx, folder, manifest, (name, environment, endpoint), inputs)
    shutil.rmtree(folder)
    seconds = time.perf_counter() - began
    return Scored(identity, int(manifest["rows"]), len(manifest["parts"]), reused, entry, round(seconds, 3))


def _all_parts(ctx: Context, manifest: Mapping[str, Any], who: Who, folder: Path, processes: int) -> int:
    """Score the parts that are not there yet; returns how many were."""
    missing = [n for n in range(len(manifest["parts"])) if not _file(folder, n).exists()]
    kept = [*manifest["key"], *filter(None, [manifest.get("event_time")])] if manifest["key"] else None
    paths = paths_of(ctx, {**manifest, "parts": [manifest["parts"][number] for number in missing]})
    pieces = [
        Piece(number, str(path), str(_file(folder, number)), kept) for number, path in zip(missing, paths, strict=True)
    ]
    asyncio.run(spread(pieces, who, processes))
    return len(manifest["parts"]) - len(missing)


def _file(folder: Path, number: int) -> Path:
    return folder / f"{number:08d}.parquet"


def _captured(
    ctx: Context,
    folder: Path,
    manifest: Mapping[str, Any],
    made: tuple[str, str, str],
    inputs: Mapping[str, str],
) -> str:
    name, environment, endpoint = made
    contract = Contract(key=tuple(manifest["key"]), event_time=manifest.get("event_time") if manifest["key"] else None)

    def batches() -> Iterator[pa.RecordBatch]:
        for number in range(len(manifest["parts"])):
            yield from pq.read_table(_file(folder, number)).to_batches()

    codec = DataCodec(contract, ctx.home / "scratch", known_to(ctx))
    saved = codec.save(batches(), name, ctx.store, {"inputs": dict(inputs)})
    with ctx.write() as tx:
        placements.put(tx, ctx.project, saved.placements)
        put = versions.put(tx, ctx.project, saved.version, actor=ctx.actor.name, at=ctx.now())
        if put.new:
            told = {**inputs, "version": saved.version.id, "rows": int(manifest["rows"])}
            facts.append(tx, ctx.project, ctx.fact("data.scored", endpoint, told))
    advance_head(ctx, environment, name, saved.version.id)
    return saved.version.id


def _models(ctx: Context, revision: str) -> dict[str, str]:
    with ctx.read() as tx:
        manifest = versions.get(tx, ctx.project, revision).manifest
    return {f"model:{role}": identity for role, identity in manifest["models"].items()}


def score_new(
    ctx: Context,
    endpoint: str,
    dataset: str,
    *,
    environment: str,
    by: list[str],
    name: str = "",
    means: Means = ONE,
) -> Scored:
    """Score the rows whose columns `by` are not among the scores yet, and append them: what a live feed brought.

    The head moves by compare-and-swap from the version that was read: a scorer that is killed, or runs beside another,
    leaves each row scored once. Raises what `score` raises, and `Conflict` when another was faster.
    """
    began = time.perf_counter()
    name = name or f"scores.{endpoint}"
    address = f"{ctx.project}.{endpoint}"
    entry = offline.chosen(offline.routes_of(ctx.home)[address], "").id
    there = head(ctx, environment, name)
    rows = read(ctx, dataset, environment=environment)
    strange = [column for column in by if column not in rows.collect_schema().names()]
    if strange or not by:
        raise InvalidInput(f"{dataset} has no column {strange or by}", hint="by= names what tells its rows apart")
    if there is not None:
        rows = rows.join(read(ctx, there, columns=by), on=by, how="anti", maintain_order="left")
    table = rows.unique(subset=by, keep="first", maintain_order=True).collect().to_arrow()
    if not table.num_rows:
        return Scored("", 0, 0, 0, entry, round(time.perf_counter() - began, 3))

    scored = _together(ctx, table, by, means, (address, entry))
    scored = scored.append_column("revision", pa.array([entry] * scored.num_rows))
    made = edit(ctx, name, scored, "append", environment, contract=Contract())
    with ctx.write() as tx:
        told = {"scored": dataset, "revision": entry, "version": made.id, "rows": scored.num_rows}
        facts.append(tx, ctx.project, ctx.fact("data.scored", endpoint, told))
    return Scored(made.id, scored.num_rows, made.parts_new, 0, entry, round(time.perf_counter() - began, 3))


def _together(ctx: Context, table: pa.Table, by: list[str], means: Means, asked: tuple[str, str]) -> pa.Table:
    """The rows' identity with their scores, in their order; some slices for each that scores."""
    scratch = ctx.home / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    size = max(-(-table.num_rows // (2 * means.processes)), _SLICE)
    with TemporaryDirectory(dir=scratch) as folder:
        pieces = []
        for number, start in enumerate(range(0, table.num_rows, size)):
            source, target = Path(folder) / f"{number}.rows", Path(folder) / f"{number}.scores"
            pq.write_table(table.slice(start, size), source)
            pieces.append(Piece(number, str(source), str(target), by))
        asyncio.run(spread(pieces, means.who(ctx.home, *asked, Path(folder).name), means.processes))
        return pa.concat_tables([pq.read_table(piece.target) for piece in pieces])


def perform(ctx: Context, payload: Mapping[str, Any]) -> dict[str, Any]:
    """The task: what `endpoints.score` asked for."""
    environment, endpoint, dataset = payload["environment"], payload["endpoint"], payload["dataset"]
    means = Means(int(payload["workers"]), int(payload["processes"]), bool(payload["cluster"]))
    more = {"environment": environment, "name": payload["name"], "means": means}
    if payload["by"]:
        made = score_new(ctx, endpoint, dataset, by=list(payload["by"]), **more)
    else:
        made = score(ctx, endpoint, dataset, revision=payload["revision"], **more)
    return {field: getattr(made, field) for field in Scored.__slots__}
