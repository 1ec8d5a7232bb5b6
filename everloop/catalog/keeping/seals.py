"""Seals: what a run held at one moment, as an immutable version.

A run is a row that clients tag and resume long after it finished. Whoever must be able to say later what a run was (a
check's evidence, a model version, a card) cites a seal: a version of kind `run` with the parameters, tags, newest
metrics, a digest of every series' history, the objects of the artifacts, and the inputs. Sealing a run that did not
change gives the same version again.
"""

import struct
from collections.abc import Iterable, Mapping
from typing import Any

from blake3 import blake3
from sqlalchemy import func, select

from everloop.catalog import steps, versions
from everloop.catalog.engine import Catalog, Tx
from everloop.catalog.tables.tracking import points, series
from everloop.catalog.tracking import artifacts, experiments, runs
from everloop.catalog.tracking.rows import DatasetInput, Point, Run
from everloop.catalog.versions import Numbered, VersionRow
from everloop.core.clock import Micros
from everloop.core.errors import NotFound
from everloop.core.ids import PREFIX
from everloop.core.version import Version

_POINT = struct.Struct(">qqdB")
_PIECE = 10_000


def asset(run: str) -> str:
    """The name under which the seals of a run are numbered."""
    return f"run-{run}"


def outline(tx: Tx, project: str, run: Run) -> dict[str, Any]:
    """What a run holds now, as its seal's manifest says it, but with the number of points in place of digests."""
    counted = select(series.c.key, func.count(points.c.series)).outerjoin(points, points.c.series == series.c.number)
    found = tx.execute(counted.where(series.c.run == run.number).group_by(series.c.key))
    counts: dict[str, int] = {row[0]: row[1] for row in found}
    return {
        "run": run.id,
        "experiment": {"id": run.experiment, "name": experiments.get(tx, project, run.experiment).name},
        "name": run.name,
        "status": run.status,
        "start": run.start,
        "end": run.end,
        "params": dict(run.params),
        "tags": dict(run.tags),
        "metrics": {point.key: _point(point) for point in run.metrics},
        "series": {key: {"points": count} for key, count in counts.items()},
        "files": {one.path: one.object for one in artifacts.tree(tx, project, run.id)},
        "datasets": [_dataset(one) for one in run.datasets],
        "models": {
            "in": [{"model": link.model, "step": link.step} for link in run.models_in],
            "out": [{"model": link.model, "step": link.step} for link in run.models_out],
        },
    }


def seal(catalog: Catalog, project: str, run: str, *, actor: str, at: Micros) -> Numbered:
    """Store what the run holds now as a version; raises `NotFound`.

    All is read in one transaction, so that the seal shows one state; it is written in another, which stays short.
    """
    with catalog.read() as tx:
        found = runs.get(tx, project, run)
        manifest = outline(tx, project, found)
        for key, count in manifest["series"].items():
            count["digest"] = _digest(tx, found.number, key)
        made = steps.of_run(tx, project, run)
        known = versions.manifests(tx, project, {one for step in made for one in (step.code, step.runtime) if one})
    inputs = {(role, one) for step in made for role, one in (("code", step.code), ("runtime", step.runtime))}
    cited = tuple(sorted((role, one) for role, one in inputs if one in known))
    with catalog.write() as tx:
        return versions.put(tx, project, Version("run", asset(run), manifest, cited), actor=actor, at=at)


def of_run(tx: Tx, project: str, run: str) -> list[VersionRow]:
    """The seals of a run, newest first."""
    return list(versions.history(tx, project, "run", asset(run), limit=100))


def changed(sealed: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Which parts of a run are different from what its seal says, given its `outline` now.

    Points are only ever added, so that equal counts are equal histories.
    """
    bare = {key: {"points": value["points"]} for key, value in sealed["series"].items()}
    then = {**sealed, "series": bare}
    return sorted(part for part, value in now.items() if then.get(part) != value)


def run_of_model(tx: Tx, project: str, identity: str) -> str:
    """The run that made a version, when it is still in the catalog; else empty."""
    made = steps.of_output(tx, project, identity)
    manifest = versions.manifests(tx, project, [identity]).get(identity, {})
    named = made[0].run if made else str(manifest.get("run", ""))
    if not named:
        return ""
    try:
        return runs.find(tx, project, named).id
    except NotFound:
        return ""


def cited(catalog: Catalog, project: str, models: Iterable[str], *, actor: str, at: Micros) -> dict[str, str]:
    """{model version: seal} of the runs that made these versions, sealed now; versions of no run are left out."""
    with catalog.read() as tx:
        made = {one: run_of_model(tx, project, one) for one in models}
    fresh = {run: seal(catalog, project, run, actor=actor, at=at).id for run in sorted(set(made.values()) - {""})}
    return {one: fresh[run] for one, run in made.items() if run}


def _digest(tx: Tx, run: int, key: str) -> str:
    """BLAKE3 of a series' points by step, time, value: each step, time, value and not-a-number flag, big-endian."""
    mine = select(series.c.number).where(series.c.run == run, series.c.key == key).scalar_subquery()
    columns = (points.c.step, points.c.at, points.c.value, points.c.nan)
    ordered = select(*columns).where(points.c.series == mine).order_by(*columns)
    hasher = blake3()
    for piece in tx.execute(ordered, execution_options={"yield_per": _PIECE}).partitions():
        hasher.update(b"".join(_POINT.pack(*row) for row in piece))
    return PREFIX + hasher.hexdigest()


def _point(point: Point) -> dict[str, Any]:
    return {"value": repr(point.value), "step": point.step, "at": point.at}


def _dataset(one: DatasetInput) -> dict[str, Any]:
    said = {"name": one.name, "digest": one.digest, "source_type": one.source_type, "source": one.source}
    return {**said, "tags": dict(one.tags)}
