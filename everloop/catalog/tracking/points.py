"""Metric points: written in batches, read as one series. The newest point of each series is kept beside its key."""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any, TypeVar

from sqlalchemy import BindParameter, and_, bindparam, func, or_, select, update

from everloop.catalog.engine import Tx, insert_into
from everloop.catalog.tables.tracking import logged_metrics, logged_models, points, runs, series
from everloop.catalog.tracking.rows import Page, Point
from everloop.catalog.tracking.search import Term, fetch_page
from everloop.core.clock import Micros

K = TypeVar("K")
CHUNK = 500
"""How many keys one IN list holds."""


def log(tx: Tx, project: str, run: int, rows: Sequence[Point]) -> None:
    """Write points of the run with that number; a point that is there already is passed over silently.

    Points that name a logged model are kept with it too, newest per metric and dataset.
    """
    if not rows:
        return
    numbers = _series_of(tx, run, rows)
    written = [
        {"series": numbers[p.key], "step": p.step, "at": p.at, "value": p.stored, "nan": int(math.isnan(p.value))}
        for p in rows
    ]
    tx.execute(insert_into(tx, points).on_conflict_do_nothing(), written)
    _advance(tx, numbers, rows)
    _log_model_metrics(tx, project, [p for p in rows if p.model])


def newest(tx: Tx, numbers: Collection[int]) -> dict[int, tuple[Point, ...]]:
    """The newest point of every series of these runs, by run number, in the order of their keys."""
    found: dict[int, list[Point]] = defaultdict(list)
    for part in chunks(numbers):
        statement = select(series).where(series.c.run.in_(part)).order_by(series.c.run, series.c.key)
        for row in tx.execute(statement):
            found[row.run].append(_point(row.key, row))
    return {run: tuple(many) for run, many in found.items()}


def history(tx: Tx, project: str, run: str, key: str, *, limit: int = 25_000, token: str = "") -> Page[Point]:
    """A page of a series in the order of time, then step; a series that was never written is empty."""
    statement = (
        select(points.c.step, points.c.at, points.c.value, points.c.nan)
        .join(series, series.c.number == points.c.series)
        .join(runs, runs.c.number == series.c.run)
        .where(runs.c.project == project, runs.c.id == run, series.c.key == key)
    )
    terms = [Term(points.c[name]) for name in ("at", "step", "value", "nan")]
    found, following = fetch_page(tx, statement, terms, limit=limit, token=token, query=["history", project, run, key])
    return Page(tuple(_point(key, row) for row in found), following)


def history_at_steps(
    tx: Tx, project: str, identities: Sequence[str], key: str, *, start: int | None, end: int | None, most: int
) -> list[Point]:
    """Points of one metric of several runs at about `most` steps, the same for all runs, between two steps.

    The first and last step and the greatest and least step of each run are always among them, so that a chart neither
    begins late nor ends early.
    """
    mine = and_(runs.c.project == project, runs.c.id.in_(identities), series.c.key == key)
    between = [
        *([points.c.step >= start] if start is not None else []),
        *([points.c.step <= end] if end is not None else []),
    ]
    joined = points.join(series, series.c.number == points.c.series).join(runs, runs.c.number == series.c.run)
    steps = [
        row.step
        for row in tx.execute(
            select(points.c.step).select_from(joined).where(mine, *between).distinct().order_by(points.c.step)
        )
    ]
    wanted = set(sampled(steps, most))
    if len(wanted) < len(steps):
        ends = select(func.min(points.c.step), func.max(points.c.step)).select_from(joined).where(mine, *between)
        wanted |= {step for row in tx.execute(ends.group_by(runs.c.number)) for step in row}
    found: list[Point] = []
    for part in chunks(sorted(wanted)):
        statement = (
            select(runs.c.id, points.c.step, points.c.at, points.c.value, points.c.nan)
            .select_from(joined)
            .where(mine, points.c.step.in_(part))
        )
        found.extend(_point(key, row, row.id) for row in tx.execute(statement))
    place = {identity: index for index, identity in enumerate(identities)}
    return sorted(found, key=lambda point: (place[point.run], point.step, point.at, point.stored))


def sampled(steps: Sequence[int], most: int) -> Sequence[int]:
    """At most `most` of the sorted `steps`, evenly, with the first and the last; all of them when they are few."""
    if len(steps) <= most:
        return steps
    if most < 2:
        return steps[-1:]
    last = len(steps) - 1
    return sorted({steps[index * last // (most - 1)] for index in range(most)})


def chunks(keys: Collection[K]) -> Iterable[list[K]]:
    """The keys in lists that one statement can hold."""
    every = list(keys)
    return (every[start : start + CHUNK] for start in range(0, len(every), CHUNK))


def _series_of(tx: Tx, run: int, rows: Sequence[Point]) -> dict[str, int]:
    """The numbers of the series that `rows` belong to, made where they are missing."""
    first: dict[str, Point] = {}
    for point in rows:
        first.setdefault(point.key, point)
    numbers = _known(tx, run, first)
    missing = [
        {"run": run, "key": p.key, "step": p.step, "at": p.at, "value": p.stored, "nan": int(math.isnan(p.value))}
        for _, p in sorted(first.items())
        if p.key not in numbers
    ]
    if missing:
        tx.execute(insert_into(tx, series).on_conflict_do_nothing(), missing)
        numbers = _known(tx, run, first)
    return numbers


def _known(tx: Tx, run: int, keys: Collection[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    every = list(keys)
    for start in range(0, len(every), CHUNK):
        statement = select(series.c.key, series.c.number).where(
            series.c.run == run, series.c.key.in_(every[start : start + CHUNK])
        )
        found.update({row.key: row.number for row in tx.execute(statement)})
    return found


def _advance(tx: Tx, numbers: dict[str, int], rows: Sequence[Point]) -> None:
    """Move the summary of each series to its newest point, unless a newer one is there."""
    best: dict[str, Point] = {}
    for point in rows:
        held = best.get(point.key)
        if held is None or point.rank > held.rank:
            best[point.key] = point
    known = series.c
    new: dict[str, BindParameter[Any]] = {name: bindparam(f"new_{name}") for name in ("step", "at", "value", "nan")}
    older = or_(
        known.step < new["step"],
        and_(known.step == new["step"], known.at < new["at"]),
        and_(known.step == new["step"], known.at == new["at"], known.nan > new["nan"]),
        and_(
            known.step == new["step"],
            known.at == new["at"],
            known.nan == new["nan"],
            known.value < new["value"],
        ),
    )
    statement = update(series).where(known.number == bindparam("of_series"), older).values(**new)
    tx.execute(
        statement,
        [
            {
                "of_series": numbers[key],
                "new_step": p.step,
                "new_at": p.at,
                "new_value": p.stored,
                "new_nan": int(math.isnan(p.value)),
            }
            for key, p in sorted(best.items())  # one order of locks: concurrent writers never wait in a circle
        ],
    )


def _log_model_metrics(tx: Tx, project: str, rows: Sequence[Point]) -> None:
    """Keep the newest measure of each logged model by metric and dataset; models that are not known are passed over."""
    if not rows:
        return
    statement = select(logged_models.c.id, logged_models.c.number).where(
        logged_models.c.project == project, logged_models.c.id.in_({p.model for p in rows})
    )
    numbers = {row.id: row.number for row in tx.execute(statement)}
    best: dict[tuple[int, str, str, str], Point] = {}
    for point in rows:
        if point.model in numbers:
            place = (numbers[point.model], point.key, point.dataset, point.digest)
            held = best.get(place)
            if held is None or point.rank >= held.rank:
                best[place] = point
    written = [
        {
            "parent": parent,
            "key": key,
            "dataset": dataset,
            "digest": digest,
            "run": p.run,
            "step": p.step,
            "at": p.at,
            "value": p.stored,
            "nan": int(math.isnan(p.value)),
        }
        for (parent, key, dataset, digest), p in best.items()
    ]
    if not written:
        return
    put = insert_into(tx, logged_metrics)
    fresh = {name: put.excluded[name] for name in ("run", "step", "at", "value", "nan")}
    held_step, held_at = logged_metrics.c.step, logged_metrics.c.at
    newer = or_(held_step < fresh["step"], and_(held_step == fresh["step"], held_at <= fresh["at"]))
    keys = ["parent", "key", "dataset", "digest"]
    tx.execute(put.on_conflict_do_update(index_elements=keys, set_=fresh, where=newer), written)


def _point(key: str, row: Any, run: str = "") -> Point:
    at: Micros = row.at
    return Point(key, math.nan if row.nan else row.value, at, row.step, run=run)
